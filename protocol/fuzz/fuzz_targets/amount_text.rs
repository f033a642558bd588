//! Any text is an exact amount or is refused; what is printed is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_protocol::{Amount, Currency};

fuzz_target!(|input: (u16, &str)| {
    let (numeric, text) = input;
    let currency = Currency::new(numeric % 999 + 1).expect("in range");
    let Ok(amount) = Amount::parse(text, currency) else { return };
    let printed = amount.display(currency).to_string();
    assert_eq!(Amount::parse(&printed, currency), Ok(amount));
    // The same number by another route: drop the point, pad the fraction.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<width$}", width = usize::from(currency.decimals()));
    let digits = digits.trim_start_matches('0');
    assert_eq!(amount.get().to_string(), if digits.is_empty() { "0" } else { digits });
});
