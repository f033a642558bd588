//! How many transfers a second a registry decides: two branches that hold nothing but a window of transfers between
//! them, against a node that runs.
//!
//! ```sh
//! cargo run --release -p tally-registry --example decisions -- HOST:PORT TLS_FOLDER [WINDOW] [SECONDS]
//! ```
//!
//! The folder holds `branch-1/` and `branch-2/`, each with `ca.pem`, `link.pem` and `link.key`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use tally_ledger::two_phase::Attempt;
use tally_protocol::link::{
    BranchStatus, CrossTransfer, LinkFrame, LinkHeartbeat, LinkHello, MarkItem, VoteItem, append_items,
};
use tally_protocol::message::Transfer;
use tally_protocol::{BranchId, Envelope, LinkType};
use tally_registry::clock::wall;
use tally_registry::link::identity::REGISTRY_NAME;
use tally_registry::link::{FrameReader, Tls};
use tokio::io::AsyncWriteExt;
use zerocopy::FromBytes;

#[derive(Default)]
struct Measured {
    begun: HashMap<u128, Instant>,
    latencies_us: Vec<u32>,
}

struct Branch {
    id: BranchId,
    to: BranchId,
    window: usize,
    measured: Arc<Mutex<Measured>>,
}

impl Branch {
    async fn run(self, endpoint: String, tls: Tls, until: Instant) -> anyhow::Result<()> {
        let (stream, _) = tls.connect(&endpoint, REGISTRY_NAME).await?;
        let (read, mut writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read);
        let mut out = Vec::new();
        let hello = LinkHello {
            branch_id: self.id,
            cluster_id: 0,
            incarnation: u128::from(self.id.get()),
            stamp: wall(),
            routes_version: 0,
            endpoint: "127.0.0.1:1",
        };
        LinkFrame::Hello(hello).append_to(&mut out, Envelope::request(0));
        writer.write_all(&out).await?;
        let first = reader.next_frame().await?.context("the registry hung up")?;
        anyhow::ensure!(matches!(first.decode(), Ok(LinkFrame::Welcome(_))), "not welcome: {:?}", first.refused_text());
        let mut next = (u128::from(self.id.get()) << 96) | (u128::from(wall().as_nanos()) << 16);
        let (mut in_flight, mut is_there) = (0, false);
        let mut beat = tokio::time::interval(Duration::from_millis(250));
        while in_flight > 0 || Instant::now() < until {
            out.clear();
            tokio::select! {
                frame = reader.next_frame() => {
                    let mut next_frame = Some(frame?.context("the registry hung up")?);
                    while let Some(frame) = next_frame {
                        match frame.decode()? {
                            LinkFrame::Prepare(items) => {
                                let votes = items.iter().map(|item| VoteItem::yes(item.transfer.id.get(), item.stamp.get(), Attempt::of_cross(item).get()));
                                append_items(&mut out, LinkType::LinkVote, votes);
                            }
                            LinkFrame::Decision(items) => {
                                append_items(&mut out, LinkType::LinkAcknowledge, items.iter().map(|item| MarkItem::new(item.id.get(), 0)));
                                in_flight -= self.note(items.iter().map(|item| item.id.get()));
                            }
                            LinkFrame::Routes(routes) => is_there = routes.iter().any(|route| route.branch_id == self.to),
                            _ => {}
                        }
                        next_frame = reader.ready_frame()?;
                    }
                }
                _ = beat.tick() => {
                    let heartbeat = LinkHeartbeat {
                        stamp: wall().as_nanos().into(),
                        routes_version: 0.into(),
                        durable: 0.into(),
                        in_doubt: 0.into(),
                        status: BranchStatus::Serving as u8,
                        reserved: [0; 3],
                    };
                    LinkFrame::Heartbeat(&heartbeat).append_to(&mut out, Envelope::request(0));
                }
            }
            if is_there && in_flight < self.window && Instant::now() < until {
                let items: Vec<_> = (in_flight..self.window)
                    .map(|_| {
                        next += 1;
                        self.transfer(next)
                    })
                    .collect();
                in_flight = self.window;
                append_items(&mut out, LinkType::LinkBegin, items.iter().copied());
                let votes = items
                    .iter()
                    .map(|item| VoteItem::yes(item.transfer.id.get(), item.stamp.get(), Attempt::of_cross(item).get()));
                append_items(&mut out, LinkType::LinkVote, votes);
            }
            writer.write_all(&out).await?;
        }
        Ok(())
    }

    fn transfer(&self, id: u128) -> CrossTransfer {
        self.measured.lock().begun.insert(id, Instant::now());
        let mut transfer = Transfer::read_from_bytes(&[0; 112]).expect("its size");
        transfer.id.set(id);
        let now = wall().as_nanos();
        CrossTransfer::new(transfer, now, now + 5_000_000_000, 0, self.id, self.to)
    }

    /// How many of `ids` this branch began.
    fn note(&self, ids: impl Iterator<Item = u128>) -> usize {
        let mut measured = self.measured.lock();
        let mut own = 0;
        for id in ids.filter(|id| id >> 96 == u128::from(self.id.get())) {
            if let Some(begun) = measured.begun.remove(&id) {
                measured.latencies_us.push(begun.elapsed().as_micros() as u32);
                own += 1;
            }
        }
        own
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let endpoint = arguments.get(1).context("HOST:PORT is missing")?.clone();
    let folder = Path::new(arguments.get(2).context("the TLS folder is missing")?);
    let window: usize = arguments.get(3).map_or(Ok(2_000), |text| text.parse())?;
    let seconds: u64 = arguments.get(4).map_or(Ok(10), |text| text.parse())?;
    let measured = Arc::new(Mutex::new(Measured::default()));
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let branch = |id: u16, to: u16| {
            let tls = folder.join(format!("branch-{id}"));
            let tls = Tls::load(&tls.join("link.pem"), &tls.join("link.key"), &tls.join("ca.pem"));
            let (id, to) = (BranchId::new(id), BranchId::new(to));
            let branch = Branch { id, to, window, measured: measured.clone() };
            let endpoint = endpoint.clone();
            async move { branch.run(endpoint, tls?, until).await }
        };
        tokio::try_join!(branch(1, 2), branch(2, 1))
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    let mut latencies = std::mem::take(&mut measured.lock().latencies_us);
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "{} transfers decided in {elapsed:.1} s: {:.0}/s; P50 {} us, P99 {} us, P99.9 {} us",
        latencies.len(),
        latencies.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}
