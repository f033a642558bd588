//! The clients' part: requests into the intake.

use tally_branch_server::intake::{Passage, Request, SessionKey};

use super::World;
use super::running::Running;
use crate::request::Asked;
use crate::trace::trace;

impl Running<'_> {
    /// One request, unless as many as allowed are open.
    pub(super) fn clients_step(&mut self, world: &mut World) -> bool {
        if self.is_draining || world.audit.open_requests() >= world.setting.in_flight_max {
            return false;
        }
        let wish = world.workload.next();
        let number = world.audit.send(wish);
        let sent = world.audit.request(number);
        trace!(world.trace, "request {number} by {:?}: {}", sent.actor.customer.get(), sent.asked.words());
        let thread = world.random.index(world.setting.session_threads) as u16;
        let request = Request {
            session: SessionKey { thread, slot: 0, generation: 0 },
            request_id: number as u64,
            trace_id: 0,
            deadline: sent.deadline,
            passage: Passage::default(),
            cleared_moves: 0,
            actor: sent.actor,
            op: sent.asked.to_op(),
        };
        if self.intake.push(request).is_err() {
            trace!(world.trace, "request {number}: the intake is full");
            world.audit.turned_away(number);
            let sent = world.audit.request(number);
            if matches!(sent.asked, Asked::Open(_)) {
                world.workload.ask_again(std::iter::once((sent.actor, sent.asked.clone())));
            }
        }
        true
    }
}
