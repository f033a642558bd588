//! A thread's sessions by [`SessionKey`]: a slab whose places are used again under another generation, so
//! that a reply for an earlier session of the place is told apart.

use std::rc::Rc;

use super::mailbox::Mailbox;
use crate::intake::SessionKey;

#[derive(Debug)]
struct Place {
    generation: u32,
    mailbox: Option<Rc<Mailbox>>,
}

/// The sessions of one thread.
#[derive(Debug)]
pub(super) struct Table {
    thread: u16,
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Table {
    pub(super) fn new(thread: u16) -> Self {
        Self { thread, places: Vec::new(), free: Vec::new() }
    }

    /// Adds a session.
    pub(super) fn insert(&mut self, mailbox: Rc<Mailbox>) -> SessionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, mailbox: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[slot as usize];
        debug_assert!(place.mailbox.is_none(), "a free place is empty");
        place.mailbox = Some(mailbox);
        SessionKey { thread: self.thread, slot, generation: place.generation }
    }

    /// Removes a session; later replies for it find nobody.
    pub(super) fn remove(&mut self, key: SessionKey) {
        let place = &mut self.places[key.slot as usize];
        assert!(place.generation == key.generation && place.mailbox.is_some(), "removed once, by its owner: {key:?}");
        place.mailbox = None;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.slot);
    }

    /// The session, if it is still there.
    pub(super) fn get(&self, key: SessionKey) -> Option<&Rc<Mailbox>> {
        let place = self.places.get(key.slot as usize)?;
        if place.generation == key.generation { place.mailbox.as_ref() } else { None }
    }

    /// All sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Mailbox>> {
        self.places.iter().filter_map(|place| place.mailbox.as_ref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_own_session_only() {
        let mut table = Table::new(3);
        let first = table.insert(Rc::default());
        let second = table.insert(Rc::default());
        assert_eq!((first.thread, first.slot, second.slot), (3, 0, 1));
        table.remove(first);
        assert!(table.get(first).is_none());
        let third = table.insert(Rc::default());
        assert_eq!(third.slot, first.slot);
        assert!(table.get(first).is_none(), "the place has another user");
        assert!(table.get(third).is_some() && table.get(second).is_some());
        assert_eq!(table.iter().count(), 2);
        table.remove(third);
        table.remove(second);
        assert!(table.is_empty());
        assert!(table.get(SessionKey { thread: 3, slot: 99, generation: 0 }).is_none());
    }
}
