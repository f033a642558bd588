//! Calls of the registry to this branch: what comes in is answered at once, and waits to go out.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tally_protocol::Envelope;
use tally_protocol::link::LinkFrame;

use crate::audit::Auditor;
use crate::bell::Bell;

/// Answers that may wait. The registry waits for one at a time; what it has given up is not answered.
const WAITING_MAX: usize = 16;

/// See the top of the file. Clones share what waits.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    auditor: Auditor,
    waiting: Arc<Mutex<VecDeque<(u64, String)>>>,
    bell: Bell,
}

impl Answers {
    pub(super) fn new(auditor: Auditor, bell: Bell) -> Self {
        Self { auditor, waiting: Arc::default(), bell }
    }

    /// A new link: what the last one was asked is of no interest.
    pub(super) fn forget(&self) {
        self.waiting.lock().clear();
    }

    /// The registry asks.
    pub(super) fn answer(&self, request_id: u64, question: &str) {
        let answer = self.auditor.ask(question);
        let mut waiting = self.waiting.lock();
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back((request_id, answer));
        drop(waiting);
        self.bell.ring();
    }

    /// Appends what waits.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        for (request_id, answer) in self.waiting.lock().drain(..) {
            LinkFrame::CallReply(&answer).append_to(bytes, Envelope::request(request_id));
        }
    }
}
