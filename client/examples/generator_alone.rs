//! What the load generator itself costs: it runs against a branch that says "done" to everything, on a thread of
//! its own, and the processor time of each side's thread is divided by the transfers.
//!
//! `cargo run --release -p tally-client --example generator_alone [SECONDS [SHAPE]]`

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls_pki_types::PrivateKeyDer;
use tally_client::cli::ConnectArgs;
use tally_client::load::{IdChoice, Load, LoadArgs, Measured, Observer, Progress, VerifyChoice};
use tally_protocol::frame::Envelope;
use tally_protocol::message::{HelloReply, ItemResult, Role, TransferReply};
use tally_protocol::reply::{LoggedIn, Refused, Reply};
use tally_protocol::request::{Request, decode};
use tally_protocol::{CustomerId, Refusal, Timestamp, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use zerocopy::FromZeros;

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(5.0), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let acceptor = certificates(&folder)?;
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let endpoint = listener.local_addr()?;
    std::thread::Builder::new().name("echo".to_owned()).spawn(move || serve(listener, &acceptor))?;

    let args = LoadArgs {
        accounts: 1_000_000,
        duration: Duration::from_secs_f64(seconds),
        warmup: Duration::from_secs(1),
        ids: IdChoice::Random,
        // There is no ledger to look into.
        verify: VerifyChoice::None,
        ..LoadArgs::new(ConnectArgs {
            connect: None,
            endpoint: Some(endpoint.to_string()),
            ca: Some(folder.path().join("ca.pem")),
            user: Some("any".to_owned()),
            password: Some("any".to_owned()),
            server_name: "localhost".to_owned(),
        })
    };
    let only = std::env::args().nth(2).unwrap_or_default();
    let shapes: [(&str, fn(&mut LoadArgs)); 4] = [
        ("closed, 64 x 16", |_| {}),
        ("closed, 1 x 1", |args| (args.connections, args.in_flight) = (1, 1)),
        ("open, 100,000/s", |args| args.rate = Some(100_000)),
        ("batches of 8,190", |args| (args.batch, args.connections, args.in_flight) = (8_190, 4, 2)),
    ];
    let mut load = Load::prepare(&args)?;
    for (name, change) in shapes.into_iter().filter(|(name, _)| name.contains(&only)) {
        let mut args = args.clone();
        change(&mut args);
        let mut times = Times::default();
        let measured = load.measure(&args, &mut times)?;
        print(name, &measured, &times);
    }
    Ok(())
}

fn print(name: &str, measured: &Measured, times: &Times) {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times.done as f64;
    println!(
        "{name:<18} {:>10.0} transfers/s   generator {:.3} us each, branch {:.3} us each   p50 {:.0} us, p99 {:.0} us",
        measured.transfers_per_second,
        each(times.used[0]),
        each(times.used[1]),
        measured.latency.p50_us,
        measured.latency.p99_us
    );
}

/// Processor time of the generator's thread and the branch's, over whole seconds after the warm-up. (At the very
/// end the generator's thread may be gone already.)
#[derive(Default)]
struct Times {
    begun: Option<[Duration; 2]>,
    used: [Duration; 2],
    done: u64,
}

impl Observer for Times {
    fn second(&mut self, progress: &Progress) {
        let now = thread_times();
        if now.contains(&Duration::ZERO) {
            return;
        }
        match self.begun {
            None if progress.warming_up => {}
            None => self.begun = Some(now),
            Some(begun) => {
                self.used = [now[0] - begun[0], now[1] - begun[1]];
                self.done += progress.done;
            }
        }
    }
}

/// By name: `load-0` and `echo`, to the nanosecond, from the scheduler.
fn thread_times() -> [Duration; 2] {
    let mut times = [Duration::ZERO; 2];
    for task in std::fs::read_dir("/proc/self/task").expect("this is Linux").flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        match read("comm").trim() {
            "load-0" => times[0] = Duration::from_nanos(nanos),
            "echo" => times[1] = Duration::from_nanos(nanos),
            _ => {}
        }
    }
    times
}

fn certificates(folder: &tempfile::TempDir) -> anyhow::Result<TlsAcceptor> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.path().join("ca.pem"), certified.cert.pem())?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn serve(listener: StdListener, acceptor: &TlsAcceptor) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("it does not block");
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Err(error) = session(acceptor, tcp).await
                    && error.downcast_ref::<std::io::Error>().is_none()
                {
                    eprintln!("session: {error:#}");
                }
            });
        }
    });
}

async fn session(acceptor: TlsAcceptor, tcp: TcpStream) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let (mut received, mut out) = (vec![0; 4 << 20], Vec::new());
    let mut end = 0;
    loop {
        match stream.read(&mut received[end..]).await? {
            0 => return Ok(()),
            len_bytes => end += len_bytes,
        }
        let mut at = 0;
        while let Some((header, body)) = split_frame(&received[at..end])? {
            let request = decode(header, body).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            answer(&request, Envelope::reply_to(header), &mut out).context("a request that is not expected")?;
            at += header.len_bytes.get() as usize;
        }
        received.copy_within(at..end, 0);
        end -= at;
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
}

fn answer(request: &Request<'_>, envelope: Envelope, out: &mut Vec<u8>) -> Option<()> {
    match request {
        Request::Hello(_) => {
            let mut hello = HelloReply::new_zeroed();
            hello.version = 1;
            hello.branch_id.set(1);
            hello.in_flight_max.set(1_024);
            hello.batch_len_max.set(8_190);
            Reply::Hello(&hello).append_to(out, envelope);
        }
        Request::Login(_) => {
            let (role, customer_id, expires_at) = (Role::Teller, CustomerId::BANK, Timestamp::MAX);
            Reply::Login(LoggedIn { role, customer_id, expires_at, token: "t" }).append_to(out, envelope);
        }
        Request::Transfer(_) => {
            Reply::Transfer { reply: &TransferReply::new_zeroed(), balances: None }.append_to(out, envelope);
        }
        Request::Batch(transfers) => {
            Reply::Batch(&vec![ItemResult::new_zeroed(); transfers.len()]).append_to(out, envelope);
        }
        Request::OpenAccounts(opens) => {
            Reply::OpenAccounts(&vec![ItemResult::new_zeroed(); opens.len()]).append_to(out, envelope);
        }
        Request::GetBalance(_) => {
            let code = Refusal::AccountNotFound.code();
            Reply::Refused(Refused { code, retry_after_ms: 0, text: "" }).append_to(out, envelope);
        }
        _ => return None,
    }
    Some(())
}
