//! New connections: the handshake, and the first frame, which says what the connection is for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_protocol::Refusal;
use tally_protocol::link::LinkFrame;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::node::Node;
use super::{branch_link, calls, peer};
use crate::link::tls::within;
use crate::link::{Frame, FrameReader, Identity, append_refused};

/// From the handshake to the first frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// A last word must not hold a closing connection open.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// After an error of accept: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The reading half of a link.
pub(super) type Reader = FrameReader<ReadHalf<TlsStream<TcpStream>>>;
/// The writing half of a link.
pub(super) type Writer = WriteHalf<TlsStream<TcpStream>>;

/// A connection that was accepted.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) identity: Identity,
}

/// Accepts until the process is to end.
pub(super) async fn run(node: Arc<Node>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.stopped() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(stage = "accept", %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let counters = &node.counters;
        if counters.connections_open.load(Ordering::Relaxed) >= node.options.connections_max as u64 {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        counters.connections.fetch_add(1, Ordering::Relaxed);
        counters.connections_open.fetch_add(1, Ordering::Relaxed);
        let node = node.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = serve(&node, stream) => ended,
                () = node.stopped() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(stage = "accept", %address, %error, "a connection ended");
            }
            node.counters.connections_open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(node: &Arc<Node>, stream: TcpStream) -> io::Result<()> {
    let (stream, identity) = node.tls.accept(stream).await?;
    let (read, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read);
    let Some(first) = within(FIRST_FRAME_TIMEOUT, reader.next_frame()).await? else { return Ok(()) };
    let Some(identity) = identity else {
        return refuse(
            node,
            &mut writer,
            &first,
            Refusal::NotPermitted,
            "the certificate names no service of the bank",
        )
        .await;
    };
    let link = Link { reader, writer, identity };
    match first.decode() {
        Ok(LinkFrame::Hello(hello)) => branch_link::serve(node, link, &first, &hello).await,
        Ok(LinkFrame::PeerHello(hello)) => peer::serve(node, link, &first, hello).await,
        Ok(LinkFrame::Call(_)) => calls::serve(node, link, first).await,
        Ok(_) => {
            let Link { mut writer, .. } = link;
            refuse(node, &mut writer, &first, Refusal::HelloExpected, "the first frame says what a link is for").await
        }
        Err(error) => {
            let Link { mut writer, .. } = link;
            refuse(node, &mut writer, &first, error.refusal(), &error.to_string()).await
        }
    }
}

/// Says why, and closes.
pub(super) async fn refuse(
    node: &Node,
    writer: &mut Writer,
    frame: &Frame,
    refusal: Refusal,
    why: &str,
) -> io::Result<()> {
    node.counters.refused.fetch_add(1, Ordering::Relaxed);
    tracing::info!(stage = "accept", %refusal, why, "refusing a link");
    let mut out = Vec::new();
    append_refused(&mut out, frame.header().request_id.get(), refusal, why);
    last_words(writer, &out).await
}

/// Sends `bytes` and closes.
pub(super) async fn last_words(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    within(LAST_WORD_TIMEOUT, async {
        writer.write_all(bytes).await?;
        writer.shutdown().await
    })
    .await
}
