//! Listening sockets: one per session thread on the same port (SO_REUSEPORT), so that the kernel spreads
//! connections and no thread hands sockets to another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel holds for us until we accept them.
const BACKLOG_LEN_MAX: i32 = 1_024;
/// Probes without an answer after which a silent peer counts as gone.
const KEEPALIVE_PROBES_MAX: u32 = 3;
const KEEPALIVE_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Binds `count` listeners to one address. Port 0 chooses a free port, the same for all.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT a second server on the same port would silently get half of our connections, so
    // first ask for the port without it.
    drop(bind_one(address, false)?);
    let first = bind_one(address, true)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind_one(bound, true)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for the connections of the last one to fade.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_LEN_MAX)?;
    Ok(socket.into())
}

/// What every accepted connection gets: no delay of small segments (we coalesce ourselves), and probes
/// when it is silent.
///
/// # Errors
/// When the peer is gone already.
pub fn prepare(stream: &tokio::net::TcpStream, keepalive: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(keepalive)
        .with_interval(KEEPALIVE_PROBE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES_MAX);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_a_port_that_was_chosen_for_the_first() {
        let listeners = bind("127.0.0.1:0".parse().expect("an address"), 3).expect("bound");
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("bound")).collect();
        assert_ne!(addresses[0].port(), 0);
        assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let listeners = bind("127.0.0.1:0".parse().expect("an address"), 1).expect("bound");
        let error = bind(listeners[0].local_addr().expect("bound"), 1).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
