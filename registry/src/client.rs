//! An operator's side of calls: asks any node, and follows it to the leader.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tally_protocol::Envelope;
use tally_protocol::link::LinkFrame;
use tokio::io::AsyncWriteExt;

use crate::link::identity::REGISTRY_NAME;
use crate::link::tls::within;
use crate::link::{FrameReader, Tls};

/// Taking in a node is the longest that a call may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);
/// An election is over by then, or there is no majority.
const TRIES_MAX: usize = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No node could be reached.
    #[error("no registry node can be reached: {0}")]
    Unreachable(String),
    /// No node leads.
    #[error("the registry has no leader at the moment: {0}")]
    NoLeader(String),
    /// The registry refuses.
    #[error("{text} ({name})")]
    Refused {
        /// For programs.
        name: String,
        /// For people.
        text: String,
    },
}

/// Asks `request` of the leader, which is looked for from `endpoints`.
///
/// # Errors
/// See [`CallError`].
pub async fn call(tls: &Tls, endpoints: &[String], request: &Value) -> Result<Value, CallError> {
    let mut next: Vec<String> = endpoints.to_vec();
    let mut last = CallError::Unreachable("no endpoint was given".to_owned());
    for _ in 0..TRIES_MAX {
        let Some(endpoint) = next.pop() else {
            tokio::time::sleep(PAUSE).await;
            next = endpoints.iter().rev().cloned().collect();
            continue;
        };
        let answer = match ask(tls, &endpoint, request).await {
            Ok(answer) => answer,
            Err(error) => {
                // Where somebody was reached, what that one said counts for more.
                if matches!(last, CallError::Unreachable(_)) {
                    last = CallError::Unreachable(format!("{endpoint}: {error}"));
                }
                continue;
            }
        };
        if let Some(value) = answer.get("ok") {
            return Ok(value.clone());
        }
        let text = |field: &str| answer["error"][field].as_str().unwrap_or_default().to_owned();
        // A node that waits to be joined knows nobody; another endpoint may.
        if text("name") != "not_leader" && text("name") != "not_joined" {
            return Err(CallError::Refused { name: text("name"), text: text("text") });
        }
        last = CallError::NoLeader(format!("{endpoint}: {}", text("text")));
        if let Some(leader) = answer["error"]["leader"].as_str() {
            next.push(leader.to_owned());
        }
    }
    Err(last)
}

/// Asks `request` of the node at `endpoint`, whoever leads.
///
/// # Errors
/// When it cannot be reached, or does not answer.
pub async fn ask(tls: &Tls, endpoint: &str, request: &Value) -> io::Result<Value> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let (stream, _) = tls.connect(endpoint, REGISTRY_NAME).await?;
    let (read, mut write) = tokio::io::split(stream);
    let mut out = Vec::new();
    LinkFrame::Call(&request.to_string()).append_to(&mut out, Envelope::request(1));
    write.write_all(&out).await?;
    let frame = within(ANSWER_TIMEOUT, FrameReader::new(read).next_frame()).await?;
    let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
    match frame.decode() {
        Ok(LinkFrame::CallReply(json)) => serde_json::from_str(json).map_err(|error| invalid(error.to_string())),
        Ok(_) | Err(_) => Err(invalid(frame.refused_text().unwrap_or_else(|| "not an answer to a call".to_owned()))),
    }
}
