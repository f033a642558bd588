//! Reading and writing plain bytes: little-endian numbers, texts and lists behind their lengths. One pair of types for
//! everything that the registry stores or sends to its own kind.
//!
//! Invariant: reading never panics and never allocates more than there are bytes.

/// What is wrong with bytes that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// They end in the middle of something.
    #[error("the bytes end too early")]
    TooShort,
    /// Something follows that nobody wrote.
    #[error("{0} bytes too many")]
    TooLong(usize),
    /// A value that is never written.
    #[error("field `{0}` is invalid")]
    Field(&'static str),
}

/// Reads from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next `len_bytes`.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take(&mut self, len_bytes: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.0.split_at_checked(len_bytes).ok_or(ReadError::TooShort)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(ReadError::TooShort)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// When there is none.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn u128(&mut self) -> Result<u128, ReadError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// 0 or 1.
    ///
    /// # Errors
    /// When it is anything else, or missing.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, ReadError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ReadError::Field(field)),
        }
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// When there are fewer than the length says.
    pub fn bytes(&mut self) -> Result<&'a [u8], ReadError> {
        let len_bytes = self.u32()? as usize;
        self.take(len_bytes)
    }

    /// A text behind its length.
    ///
    /// # Errors
    /// When it is cut short, or is not UTF-8.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ReadError::Field(field))
    }

    /// The count in front of a list whose entries have `entry_len_bytes_min` at least: one that the rest cannot hold is
    /// refused before anybody makes room for it.
    ///
    /// # Errors
    /// When the rest is too short for as many.
    pub fn count(&mut self, entry_len_bytes_min: usize) -> Result<usize, ReadError> {
        let count = self.u32()? as usize;
        let needed = count.checked_mul(entry_len_bytes_min).ok_or(ReadError::TooShort)?;
        if needed <= self.0.len() { Ok(count) } else { Err(ReadError::TooShort) }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub const fn end(self) -> Result<(), ReadError> {
        if self.0.is_empty() { Ok(()) } else { Err(ReadError::TooLong(self.0.len())) }
    }
}

/// Writes to the end.
pub trait Write {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Sixteen bytes.
    fn put_u128(&mut self, value: u128);
    /// Bytes behind their length.
    ///
    /// # Panics
    /// When there are 4 GiB of them.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// The count in front of a list.
    ///
    /// # Panics
    /// When it does not fit in 32 bits.
    fn put_count(&mut self, count: usize);
}

impl Write for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }
    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).expect("fewer than 4 G of anything"));
    }
}
