//! Where requests wait for their replies: a table whose index travels in the request id.
//!
//! A slot is used again and again, with its buffer, so a request in steady state allocates nothing.
//!
//! Invariant: a reply reaches only the request it answers. The id carries the slot's generation, which moves on
//! whenever the slot is freed, so an answer that comes twice, or to a caller that went away, meets nobody.

use std::task::{Poll, Waker};
use std::time::Instant;

use tally_protocol::FrameHeader;

use crate::LostReason;

/// A reply's buffer is kept for the slot's next request up to this size.
const KEPT_BODY_LEN_BYTES_MAX: usize = 1024;

/// Names one request of one connection. On the wire: generation in the upper half, slot index in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotKey {
    index: u32,
    generation: u32,
}

impl SlotKey {
    pub(crate) const fn request_id(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    const fn of_request_id(request_id: u64) -> Self {
        Self { index: request_id as u32, generation: (request_id >> 32) as u32 }
    }
}

/// A reply that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) header: FrameHeader,
    pub(crate) body: Vec<u8>,
}

/// Why a slot gives no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    Lost(LostReason),
    DeadlinePassed,
}

#[derive(Debug)]
enum SlotState {
    Free {
        next_free: Option<u32>,
    },
    /// The caller waits.
    Waiting {
        waker: Option<Waker>,
        deadline: Instant,
    },
    /// The caller went away; the branch still owes the reply.
    Abandoned,
    /// The reply is in `body`.
    Arrived(FrameHeader),
    /// There will be none.
    Failed(LostReason),
    /// None came in time; the branch still owes it.
    Late,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: SlotState,
    weight: u32,
    body: Vec<u8>,
}

/// The table. `taken <= slots.len()`, and the free slots form a list.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    first_free: Option<u32>,
    taken: usize,
}

impl Slots {
    /// Takes a slot for a request that is answered by `deadline` or given up. `weight` comes back when the slot
    /// is freed.
    pub(crate) fn insert(&mut self, deadline: Instant, weight: u32) -> SlotKey {
        self.taken += 1;
        let state = SlotState::Waiting { waker: None, deadline };
        if let Some(index) = self.first_free {
            let slot = &mut self.slots[index as usize];
            let SlotState::Free { next_free } = slot.state else {
                unreachable!("the free list holds free slots only");
            };
            self.first_free = next_free;
            slot.state = state;
            slot.weight = weight;
            return SlotKey { index, generation: slot.generation };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, state, weight, body: Vec::new() });
        SlotKey { index, generation: 0 }
    }

    /// Requests that have not been answered or given up, those included whose callers went away.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Asks for the reply; without one, `waker` is woken when there is news. After `Ready` the key is used up,
    /// and the weight that it brought is returned, unless the branch still owes the reply.
    pub(crate) fn poll(&mut self, key: SlotKey, waker: &Waker) -> Poll<(Result<Arrived, NoReply>, u32)> {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "a key is polled only until it is ready");
        let result = match &mut slot.state {
            SlotState::Waiting { waker: waiting, .. } => {
                match waiting {
                    Some(known) if known.will_wake(waker) => {}
                    known => *known = Some(waker.clone()),
                }
                return Poll::Pending;
            }
            SlotState::Late => {
                slot.state = SlotState::Abandoned;
                return Poll::Ready((Err(NoReply::DeadlinePassed), 0));
            }
            SlotState::Arrived(header) => Ok(Arrived { header: *header, body: std::mem::take(&mut slot.body) }),
            SlotState::Failed(reason) => Err(NoReply::Lost(*reason)),
            SlotState::Free { .. } | SlotState::Abandoned => unreachable!("the key would have another generation"),
        };
        Poll::Ready((result, self.free(key.index)))
    }

    /// Gives a reply's buffer back to the slot that it came from.
    pub(crate) fn give_back(&mut self, key: SlotKey, mut body: Vec<u8>) {
        let slot = &mut self.slots[key.index as usize];
        if slot.body.capacity() == 0 && body.capacity() <= KEPT_BODY_LEN_BYTES_MAX {
            body.clear();
            slot.body = body;
        }
    }

    /// The caller goes away. Returns the weight if the slot is free now.
    pub(crate) fn abandon(&mut self, key: SlotKey) -> u32 {
        let slot = &mut self.slots[key.index as usize];
        if slot.generation != key.generation {
            return 0;
        }
        match slot.state {
            SlotState::Waiting { .. } | SlotState::Late => {
                slot.state = SlotState::Abandoned;
                0
            }
            SlotState::Arrived(_) | SlotState::Failed(_) => self.free(key.index),
            SlotState::Free { .. } | SlotState::Abandoned => 0,
        }
    }

    /// A reply came. Its caller's waker goes to `wake`; the weight comes back if there is no caller.
    pub(crate) fn complete(&mut self, header: &FrameHeader, body: &[u8], wake: &mut Vec<Waker>) -> u32 {
        let key = SlotKey::of_request_id(header.request_id.get());
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return 0 };
        if slot.generation != key.generation {
            return 0;
        }
        match &mut slot.state {
            SlotState::Waiting { waker, .. } => {
                wake.extend(waker.take());
                slot.body.clear();
                slot.body.extend_from_slice(body);
                slot.state = SlotState::Arrived(*header);
                0
            }
            // Late but here: the caller has not looked yet, so it gets the answer after all.
            SlotState::Late => {
                slot.body.clear();
                slot.body.extend_from_slice(body);
                slot.state = SlotState::Arrived(*header);
                0
            }
            SlotState::Abandoned => self.free(key.index),
            SlotState::Free { .. } | SlotState::Arrived(_) | SlotState::Failed(_) => 0,
        }
    }

    /// Tells every caller that no reply will come.
    pub(crate) fn fail_all(&mut self, reason: LostReason, wake: &mut Vec<Waker>) {
        for slot in &mut self.slots {
            match &mut slot.state {
                SlotState::Waiting { waker, .. } => {
                    wake.extend(waker.take());
                    slot.state = SlotState::Failed(reason);
                }
                SlotState::Late => slot.state = SlotState::Failed(reason),
                SlotState::Free { .. } | SlotState::Abandoned | SlotState::Arrived(_) | SlotState::Failed(_) => {}
            }
        }
    }

    /// Tells the callers whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant, wake: &mut Vec<Waker>) {
        for slot in &mut self.slots {
            if let SlotState::Waiting { waker, deadline } = &mut slot.state
                && *deadline <= now
            {
                wake.extend(waker.take());
                slot.state = SlotState::Late;
            }
        }
    }

    fn free(&mut self, index: u32) -> u32 {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = SlotState::Free { next_free: self.first_free };
        self.first_free = Some(index);
        self.taken -= 1;
        slot.weight
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tally_protocol::MessageType;

    use super::*;

    fn header(key: SlotKey) -> FrameHeader {
        FrameHeader::new(MessageType::Pong, key.request_id(), 0)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn replies_reach_their_requests_in_any_order_and_only_once() {
        let mut slots = Slots::default();
        let mut wake = Vec::new();
        let first = slots.insert(far(), 1);
        let second = slots.insert(far(), 2);
        assert!(slots.poll(first, Waker::noop()).is_pending());
        slots.complete(&header(second), b"two", &mut wake);
        slots.complete(&header(first), b"one", &mut wake);
        assert_eq!(wake.len(), 1, "only the first had a waker");

        let Poll::Ready((Ok(arrived), 1)) = slots.poll(first, Waker::noop()) else { panic!("first") };
        assert_eq!(arrived.body, b"one");
        let Poll::Ready((Ok(arrived), 2)) = slots.poll(second, Waker::noop()) else { panic!("second") };
        assert_eq!(arrived.body, b"two");
        assert_eq!(slots.taken(), 0);

        let third = slots.insert(far(), 1);
        slots.complete(&header(second), b"again", &mut wake);
        slots.complete(&FrameHeader::new(MessageType::Pong, 999, 0), b"nobody", &mut wake);
        assert!(slots.poll(third, Waker::noop()).is_pending(), "an old answer does not reach a new request");
    }

    #[test]
    fn a_slot_stays_taken_while_the_branch_owes_the_reply() {
        let mut slots = Slots::default();
        let mut wake = Vec::new();
        let dropped = slots.insert(far(), 5);
        assert_eq!(slots.abandon(dropped), 0);
        let late = slots.insert(Instant::now(), 7);
        slots.expire(Instant::now(), &mut wake);
        assert!(matches!(slots.poll(late, Waker::noop()), Poll::Ready((Err(NoReply::DeadlinePassed), 0))));
        assert_eq!(slots.taken(), 2);
        assert_eq!(slots.complete(&header(dropped), b"", &mut wake), 5);
        assert_eq!(slots.complete(&header(late), b"", &mut wake), 7);
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn a_lost_connection_fails_every_caller() {
        let mut slots = Slots::default();
        let mut wake = Vec::new();
        let key = slots.insert(far(), 1);
        slots.fail_all(LostReason::Closed, &mut wake);
        let Poll::Ready((Err(no_reply), 1)) = slots.poll(key, Waker::noop()) else { panic!("not failed") };
        assert_eq!(no_reply, NoReply::Lost(LostReason::Closed));
    }
}
