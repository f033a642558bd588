//! HTTP for `/metrics`, `/livez` and `/readyz`, on the node's own thread: a page is made in well under a millisecond.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::server::Node;

/// Serves until the process is to end.
pub async fn run(node: Arc<Node>, listener: TcpListener) {
    let (for_metrics, for_ready) = (node.clone(), node.clone());
    let metrics =
        move || std::future::ready(([(CONTENT_TYPE, "text/plain; version=0.0.4")], crate::metrics::page(&for_metrics)));
    let readyz = move || {
        let is_ready = for_ready.leader().is_some() && !*for_ready.stopping.borrow();
        std::future::ready(match is_ready {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        })
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| std::future::ready("alive\n")))
        .route("/readyz", get(readyz));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => {
            if let Err(error) = served {
                tracing::error!(stage = "admin", %error, "the admin server ended");
            }
        }
        () = node.stopped() => {}
    }
}
