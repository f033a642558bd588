//! The operator's door: HTTP for `/metrics`, `/livez` and `/readyz`, on a thread of its own, so that a
//! slow scrape never meets a payment.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::sync::oneshot;

use crate::metrics::Page;

/// Fills in a page when somebody scrapes.
pub type Collect = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// The running HTTP server; it ends when this is dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens at `address`; port 0 chooses a free one. Not ready yet.
    ///
    /// # Errors
    /// When the address cannot be had, or no thread can be started.
    pub fn start(address: SocketAddr, collect: Collect) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ready = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel();
        let router = router(collect, ready.clone());
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            let served = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::select! {
                        served = axum::serve(listener, router).into_future() => served,
                        // A scrape in progress is cut off: a stopping process has nothing more to say.
                        _ = stopped => Ok(()),
                    }
                })
            });
            if let Err(error) = served {
                tracing::error!(%error, "the admin server ended");
            }
        })?;
        Ok(Self { address, ready, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `/readyz` says from here on: 200 while the branch serves, 503 while it starts or drains.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn router(collect: Collect, ready: Arc<AtomicBool>) -> Router {
    let ready_for_metrics = ready.clone();
    let metrics = move || {
        let mut page = Page::default();
        page.put("tally_ready", &[], f64::from(u8::from(ready_for_metrics.load(Ordering::Relaxed))));
        collect(&mut page);
        crate::metrics::put_process(&mut page);
        std::future::ready(([(CONTENT_TYPE, "text/plain; version=0.0.4")], page.text()))
    };
    let readyz = move || {
        std::future::ready(if ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        })
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| std::future::ready("alive\n")))
        .route("/readyz", get(readyz))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("listening");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn says_whether_it_is_ready_and_what_was_counted() {
        let collect: Collect = Arc::new(|page| page.put("tally_accounts", &[], 7.0));
        let admin = Admin::start("127.0.0.1:0".parse().expect("an address"), collect).expect("started");
        assert!(get(admin.address(), "/livez").starts_with("HTTP/1.1 200"));
        assert!(get(admin.address(), "/readyz").starts_with("HTTP/1.1 503"));
        admin.set_ready(true);
        assert!(get(admin.address(), "/readyz").starts_with("HTTP/1.1 200"));
        let metrics = get(admin.address(), "/metrics");
        assert!(metrics.contains("\ntally_accounts 7\n") && metrics.contains("\ntally_ready 1\n"), "{metrics}");
        assert!(get(admin.address(), "/other").starts_with("HTTP/1.1 404"));
        let address = admin.address();
        drop(admin);
        assert!(TcpStream::connect(address).is_err(), "the port is free again");
    }
}
