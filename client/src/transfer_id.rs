//! New transfer ids.

use tally_protocol::TransferId;
use uuid::Uuid;

/// A fresh id for a transfer: a UUIDv7, so ids of one process rise with time and those of two never meet.
///
/// Take the id *before* the first attempt and keep it with the business record: it is what makes a retry
/// safe, and what an unknown outcome is asked about by.
pub fn next_transfer_id() -> TransferId {
    TransferId::new(Uuid::now_v7().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_say_version_7() {
        let ids: Vec<u128> = (0..1_000).map(|_| next_transfer_id().get()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "ids of one process rise");
        assert!(ids.iter().all(|id| (id >> 76) & 0xf == 7), "version nibble");
    }
}
