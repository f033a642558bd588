//! Reads what a branch says of its books (docs/PROTOCOL.md, "Calls to a branch").

use anyhow::Context;
use serde_json::Value;
use tally_ledger::audit::{BranchBooks, OpenLeg, Settlement, Side, Totals};
use tally_protocol::{Amount, BranchId, Currency, TransferId};

fn number(value: &Value, field: &str) -> anyhow::Result<u64> {
    value[field].as_u64().with_context(|| format!("`{field}` is no number in {value}"))
}

/// Sums are texts: they may be larger than a number of JSON.
fn sum(value: &Value, field: &str) -> anyhow::Result<u128> {
    let text = value[field].as_str().with_context(|| format!("`{field}` is no sum in {value}"))?;
    text.parse().with_context(|| format!("`{field}` is no sum in {value}"))
}

fn list<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a [Value]> {
    value[field].as_array().map(Vec::as_slice).with_context(|| format!("`{field}` is no list in {value}"))
}

fn branch_id(value: &Value, field: &str) -> anyhow::Result<BranchId> {
    Ok(BranchId::new(u16::try_from(number(value, field)?).with_context(|| format!("`{field}` in {value}"))?))
}

fn currency(value: &Value) -> anyhow::Result<Currency> {
    let numeric = u16::try_from(number(value, "currency")?).ok().and_then(Currency::new);
    numeric.with_context(|| format!("`currency` is none in {value}"))
}

/// The books without their open legs, which come by the page.
pub(super) fn books(branch: BranchId, said: &Value) -> anyhow::Result<BranchBooks> {
    let mut books = BranchBooks { branch, ..BranchBooks::default() };
    for said in list(said, "currencies")? {
        let totals = Totals {
            accounts: number(said, "accounts")?,
            debits_posted: sum(said, "debits_posted")?,
            credits_posted: sum(said, "credits_posted")?,
            debits_held: sum(said, "debits_held")?,
            credits_held: sum(said, "credits_held")?,
            holds: sum(said, "holds")?,
        };
        books.currencies.insert(currency(said)?, totals);
    }
    for said in list(said, "settlements")? {
        let side = |field: &str| -> anyhow::Result<Side> {
            let said = &said[field];
            Ok(Side { posted: sum(said, "posted")?, early: sum(said, "early")?, late: sum(said, "late")? })
        };
        let settlement = Settlement { debits: side("debits")?, credits: side("credits")? };
        books.settlements.insert((branch_id(said, "peer")?, currency(said)?), settlement);
    }
    Ok(books)
}

/// One page of open legs.
pub(super) fn legs(said: &Value) -> anyhow::Result<Vec<OpenLeg>> {
    list(said, "legs")?.iter().map(leg).collect()
}

fn leg(said: &Value) -> anyhow::Result<OpenLeg> {
    let id = |field: &str| {
        let id = said[field].as_str().and_then(|text| u128::from_str_radix(text, 16).ok());
        id.map(TransferId::new).with_context(|| format!("`{field}` is none in {said}"))
    };
    Ok(OpenLeg {
        id: id("id")?,
        decided_under: id("decided_under")?,
        peer: branch_id(said, "peer")?,
        currency: currency(said)?,
        amount: Amount::new(number(said, "amount")?),
        is_outgoing: said["outgoing"].as_bool().with_context(|| format!("`outgoing` in {said}"))?,
        is_hold: said["hold"].as_bool().with_context(|| format!("`hold` in {said}"))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_branch_says_is_read_and_what_no_branch_says_is_not() {
        let side = json!({ "posted": "340282366920938463463374607431768211455", "early": "1", "late": "2" });
        let said = json!({
            "currencies": [{
                "currency": 978, "accounts": 3, "debits_posted": "18446744073709551616", "credits_posted": "5",
                "debits_held": "6", "credits_held": "7", "holds": "8",
            }],
            "settlements": [{ "peer": 2, "currency": 978, "debits": side, "credits": side }],
        });
        let read = books(BranchId::new(1), &said).expect("as a branch says it");
        assert_eq!(read.currencies[&Currency::EUR].debits_posted, 1 << 64);
        assert_eq!(read.settlements[&(BranchId::new(2), Currency::EUR)].debits.posted, u128::MAX);
        for (pointer, wrong) in [
            ("/currencies", json!(null)),
            ("/currencies/0/currency", json!(0)),
            ("/currencies/0/holds", json!(8)),
            ("/currencies/0/holds", json!("-8")),
            ("/settlements/0/peer", json!(70_000)),
            ("/settlements/0/debits", json!({ "posted": "1" })),
        ] {
            let mut damaged = said.clone();
            *damaged.pointer_mut(pointer).expect("there") = wrong;
            assert!(books(BranchId::new(1), &damaged).is_err(), "{pointer}");
        }
        let said = json!({ "id": "00000000000000000000000000000abc", "decided_under": "0000000000000000000000000000def0", "peer": 2, "currency": 978, "amount": 5, "outgoing": true, "hold": false });
        let read = legs(&json!({ "open": 1, "legs": [said] })).expect("as a branch says it");
        assert_eq!((read[0].id, read[0].amount, read[0].is_outgoing), (TransferId::new(0xabc), Amount::new(5), true));
        assert_eq!(read[0].decided_under, TransferId::new(0xdef0));
        assert!(legs(&json!({ "legs": [{}] })).is_err());
    }
}
