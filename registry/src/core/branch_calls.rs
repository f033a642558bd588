//! Calls to one branch over its link: what waits to go out, and who waits for the answer.

use std::collections::BTreeMap;

use tally_protocol::Envelope;
use tally_protocol::link::LinkFrame;
use tokio::sync::oneshot;

/// Calls that may wait for one branch. They are operators', one behind the other.
const WAITING_MAX: usize = 16;

/// See the module. Lost with the link: who waits hears that.
#[derive(Debug, Default)]
pub(super) struct BranchCalls {
    outgoing: Vec<(u64, String)>,
    waiting: BTreeMap<u64, oneshot::Sender<String>>,
    last_id: u64,
}

impl BranchCalls {
    /// Asks `question`; `None` where too many wait.
    pub(super) fn ask(&mut self, question: String) -> Option<oneshot::Receiver<String>> {
        // Whoever has given up leaves room.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.last_id += 1;
        let (answer, answered) = oneshot::channel();
        self.outgoing.push((self.last_id, question));
        self.waiting.insert(self.last_id, answer);
        Some(answered)
    }

    /// Appends what waits to go out.
    pub(super) fn append_to(&mut self, out: &mut Vec<u8>) {
        for (id, question) in self.outgoing.drain(..) {
            LinkFrame::Call(&question).append_to(out, Envelope::request(id));
        }
    }

    /// The branch has answered call `id`.
    pub(super) fn answered(&mut self, id: u64, answer: &str) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // Who has given up does not want to know.
            let _ = waiting.send(answer.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_who_asked_and_those_who_gave_up_leave_room() {
        let mut calls = BranchCalls::default();
        let mut asked: Vec<_> = (0..WAITING_MAX).map(|n| calls.ask(n.to_string()).expect("room")).collect();
        assert!(calls.ask("one more".to_owned()).is_none());
        let mut out = Vec::new();
        calls.append_to(&mut out);
        let len_bytes = out.len();
        calls.append_to(&mut out);
        assert_eq!(out.len(), len_bytes, "each goes out once");
        calls.answered(2, "two");
        calls.answered(2, "again");
        calls.answered(99, "nobody's");
        assert_eq!(asked.remove(1).try_recv(), Ok("two".to_owned()));
        assert!(asked[0].try_recv().is_err());
        drop(asked.pop());
        asked.push(calls.ask("in the answered one's place".to_owned()).expect("room"));
        asked.push(calls.ask("and in his who gave up".to_owned()).expect("room"));
        assert!(calls.ask("full".to_owned()).is_none());
    }
}
