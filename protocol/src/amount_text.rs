//! Amounts as people write them: exact, in both directions, without a float on the way.
//!
//! Invariant: `Amount::parse(&amount.display(currency).to_string(), currency) == Ok(amount)` for every
//! amount and currency, and no text is rounded: one with more decimals than the currency has is refused.

use std::fmt;

use crate::{Amount, Currency};

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountTextError {
    /// There is nothing to read.
    #[error("an amount is missing")]
    Empty,
    /// A sign: the direction of money is said by debit and credit.
    #[error("an amount has no sign")]
    Sign,
    /// Something else than digits and one decimal point with digits on both sides.
    #[error("an amount is written in digits, with one decimal point at most")]
    Character,
    /// More digits behind the point than the currency has.
    #[error("more than {decimals} decimals")]
    Decimals {
        /// How many the currency has.
        decimals: u8,
    },
    /// More minor units than 64 bits can count.
    #[error("the amount is too large")]
    TooLarge,
}

impl Amount {
    /// Reads an amount in major units, e.g. `"12.34"` or `"12"` in EUR, `"1200"` in JPY.
    ///
    /// Fewer decimals than the currency has are taken as zeros; leading zeros are allowed; blanks, signs,
    /// exponents and thousands separators are not.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, AmountTextError> {
        let decimals = currency.decimals();
        if text.is_empty() {
            return Err(AmountTextError::Empty);
        }
        if text.starts_with(['-', '+']) {
            return Err(AmountTextError::Sign);
        }
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !fraction.is_none_or(is_number) {
            return Err(AmountTextError::Character);
        }
        let fraction = fraction.unwrap_or("");
        if fraction.len() > usize::from(decimals) {
            return Err(AmountTextError::Decimals { decimals });
        }
        let zeros = usize::from(decimals) - fraction.len();
        let digits = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', zeros));
        let mut minor_units = 0u64;
        for digit in digits {
            minor_units = minor_units
                .checked_mul(10)
                .and_then(|units| units.checked_add(u64::from(digit - b'0')))
                .ok_or(AmountTextError::TooLarge)?;
        }
        Ok(Self::new(minor_units))
    }

    /// The amount in major units with all of the currency's decimals, e.g. `12.30`; the code is not printed.
    pub const fn display(self, currency: Currency) -> AmountDisplay {
        AmountDisplay { amount: self, currency }
    }
}

/// Prints an amount in major units; made by [`Amount::display`].
#[derive(Clone, Copy, Debug)]
pub struct AmountDisplay {
    amount: Amount,
    currency: Currency,
}

impl fmt::Display for AmountDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.currency.decimals();
        let unit = 10u64.pow(u32::from(decimals));
        let (whole, fraction) = (self.amount.get() / unit, self.amount.get() % unit);
        match decimals {
            0 => f.pad(&whole.to_string()),
            decimals => f.pad(&format!("{whole}.{fraction:0width$}", width = usize::from(decimals))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bhd() -> Currency {
        Currency::from_code("BHD").expect("in the table")
    }

    #[test]
    fn texts_and_what_they_mean() {
        let cases: &[(&str, Currency, Result<u64, AmountTextError>)] = &[
            ("0", Currency::EUR, Ok(0)),
            ("12.34", Currency::EUR, Ok(1_234)),
            ("12.3", Currency::EUR, Ok(1_230)),
            ("12", Currency::EUR, Ok(1_200)),
            ("0012.30", Currency::EUR, Ok(1_230)),
            ("1200", Currency::JPY, Ok(1_200)),
            ("1.234", bhd(), Ok(1_234)),
            ("184467440737095516.15", Currency::EUR, Ok(u64::MAX)),
            ("18446744073709551615", Currency::JPY, Ok(u64::MAX)),
            ("000000000000000000000000000001", Currency::JPY, Ok(1)),
            ("184467440737095516.16", Currency::EUR, Err(AmountTextError::TooLarge)),
            ("18446744073709551616", Currency::JPY, Err(AmountTextError::TooLarge)),
            ("18446744073709551615", Currency::EUR, Err(AmountTextError::TooLarge)),
            ("12.345", Currency::EUR, Err(AmountTextError::Decimals { decimals: 2 })),
            ("12.340", Currency::EUR, Err(AmountTextError::Decimals { decimals: 2 })),
            ("1.0", Currency::JPY, Err(AmountTextError::Decimals { decimals: 0 })),
            ("", Currency::EUR, Err(AmountTextError::Empty)),
            ("-1", Currency::EUR, Err(AmountTextError::Sign)),
            ("+1", Currency::EUR, Err(AmountTextError::Sign)),
            (".5", Currency::EUR, Err(AmountTextError::Character)),
            ("5.", Currency::EUR, Err(AmountTextError::Character)),
            (".", Currency::EUR, Err(AmountTextError::Character)),
            ("1.2.3", Currency::EUR, Err(AmountTextError::Character)),
            ("1,234.00", Currency::EUR, Err(AmountTextError::Character)),
            (" 1", Currency::EUR, Err(AmountTextError::Character)),
            ("1e3", Currency::EUR, Err(AmountTextError::Character)),
            ("١٢", Currency::EUR, Err(AmountTextError::Character)),
            ("1.-5", Currency::EUR, Err(AmountTextError::Character)),
        ];
        for (text, currency, expected) in cases {
            assert_eq!(Amount::parse(text, *currency).map(Amount::get), *expected, "{text:?} in {currency}");
        }
    }

    #[test]
    fn printing_shows_every_decimal_and_pads() {
        assert_eq!(Amount::new(5).display(Currency::EUR).to_string(), "0.05");
        assert_eq!(Amount::new(1_230).display(bhd()).to_string(), "1.230");
        assert_eq!(Amount::MAX.display(Currency::EUR).to_string(), "184467440737095516.15");
        assert_eq!(
            format!("{:>8}|{:<6}|", Amount::new(5).display(Currency::EUR), Amount::new(7).display(Currency::JPY)),
            "    0.05|7     |"
        );
    }

    fn any_currency() -> impl Strategy<Value = Currency> {
        (1u16..=999).prop_map(|numeric| Currency::new(numeric).expect("in range"))
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back_exactly(minor_units: u64, currency in any_currency()) {
            let amount = Amount::new(minor_units);
            prop_assert_eq!(Amount::parse(&amount.display(currency).to_string(), currency), Ok(amount));
        }

        #[test]
        fn any_text_is_read_exactly_or_refused(text in "[-+0-9.eE, ]{0,24}", currency in any_currency()) {
            if let Ok(amount) = Amount::parse(&text, currency) {
                // The same number, written out by another route: pad the fraction, drop the point.
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let digits = format!("{whole}{fraction:0<width$}", width = usize::from(currency.decimals()));
                prop_assert_eq!(u128::from(amount.get()), digits.parse::<u128>().expect("digits"));
            }
        }

        #[test]
        fn any_text_at_all_is_answered(text: String, currency in any_currency()) {
            let _ = Amount::parse(&text, currency);
        }
    }
}
