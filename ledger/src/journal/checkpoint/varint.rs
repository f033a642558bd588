//! Small numbers in few bytes: seven bits each, lowest first, the eighth says that more follow.

use super::CheckpointDamage;

/// Appends `value`.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a 128-bit `value`.
pub(super) fn put_wide(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a value off the front.
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, CheckpointDamage> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CheckpointDamage::Short)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if shift == 63 && byte > 1 { Err(CheckpointDamage::Field("varint")) } else { Ok(value) };
        }
    }
    Err(CheckpointDamage::Field("varint"))
}

/// Takes a 128-bit value off the front.
pub(super) fn take_wide(bytes: &mut &[u8]) -> Result<u128, CheckpointDamage> {
    let mut value = 0;
    for shift in (0..128).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CheckpointDamage::Short)?;
        *bytes = rest;
        value |= u128::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if shift == 126 && byte > 3 { Err(CheckpointDamage::Field("varint")) } else { Ok(value) };
        }
    }
    Err(CheckpointDamage::Field("varint"))
}

/// The difference from `before`, with its sign in the lowest bit, so that small steps back are small too.
pub(super) const fn step(before: u64, value: u64) -> u64 {
    let difference = value.wrapping_sub(before) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

/// Undoes [`step`].
pub(super) const fn after_step(before: u64, step: u64) -> u64 {
    before.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg())
}

/// [`step`] for 128 bits.
pub(super) const fn step_wide(before: u128, value: u128) -> u128 {
    let difference = value.wrapping_sub(before) as i128;
    ((difference << 1) ^ (difference >> 127)) as u128
}

/// [`after_step`] for 128 bits.
pub(super) const fn after_step_wide(before: u128, step: u128) -> u128 {
    before.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back(before: u64, value: u64, wide_before: u128, wide: u128, small in 0u64..300) {
            let mut out = Vec::new();
            put(&mut out, value);
            put_wide(&mut out, wide);
            put(&mut out, small);
            let mut bytes = &out[..];
            prop_assert_eq!(take(&mut bytes), Ok(value));
            prop_assert_eq!(take_wide(&mut bytes), Ok(wide));
            prop_assert_eq!(take(&mut bytes), Ok(small));
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(after_step(before, step(before, value)), value);
            prop_assert_eq!(after_step_wide(wide_before, step_wide(wide_before, wide)), wide);
        }
    }

    #[test]
    fn small_steps_are_small_and_nonsense_is_refused() {
        assert_eq!([step(10, 10), step(10, 9), step(10, 11), step(0, u64::MAX)], [0, 1, 2, 1]);
        assert_eq!(take(&mut &[0x80; 4][..]), Err(CheckpointDamage::Short));
        assert_eq!(take(&mut &[0xff; 30][..]), Err(CheckpointDamage::Field("varint")));
        assert_eq!(take_wide(&mut &[0xff; 30][..]), Err(CheckpointDamage::Field("varint")));
        let mut too_much = [0xff; 10];
        too_much[9] = 2;
        assert_eq!(take(&mut &too_much[..]), Err(CheckpointDamage::Field("varint")));
    }
}
