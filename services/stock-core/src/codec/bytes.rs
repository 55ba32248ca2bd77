//! Numbers, texts and ids as bytes, and back: what every format of this crate is made of.
//!
//! A number takes 7 bits a byte, the low ones first, and no more bytes than it needs; a signed one
//! is folded first (0, -1, 1, -2, ...). Ids are 16 bytes, texts and lists carry their length,
//! choices a tag.

use crate::error::Flaw;
use crate::ids::{ReservationId, Stamp};
use crate::order::Place;
use crate::sku::Sku;

/// What was read, or what is wrong with the bytes.
pub(crate) type Read<T> = Result<T, Flaw>;

/// Collects bytes.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written; the next bytes are others.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Which of a few things follows.
    pub fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    /// A number.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// A number of either sign.
    pub fn signed(&mut self, number: i64) {
        self.number(folded(number));
    }

    /// A text behind its length.
    pub fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    /// Bytes behind their length.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Bytes that are as long as they always are, or that say themselves where they end.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Sets a bit of a byte that was written.
    pub(super) fn mark(&mut self, at: usize, bit: u8) {
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte |= bit;
        }
    }

    pub(crate) fn fixed<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.raw(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        self.number(stamp.0);
    }

    pub(super) fn place(&mut self, place: Place) {
        self.stamp(place.stamp);
        self.number(place.sequence);
    }

    pub(super) fn ids(&mut self, ids: &[ReservationId]) {
        self.count(ids.len());
        for id in ids {
            self.fixed(id.as_bytes());
        }
    }
}

/// Small numbers of either sign become small ones without a sign.
pub(super) fn folded(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Goes through bytes. Total: whatever they are, something is read or there is a [`Flaw`]; and
/// nothing is allocated that the bytes have no room for.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
    bytes: usize,
    /// Nothing in the bytes was stamped later.
    now: Stamp,
}

impl<'a> Reader<'a> {
    /// At the beginning of these.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::of_state(bytes, Stamp(u64::MAX))
    }

    /// Of a state: nothing in it may have been stamped later than `now`.
    pub(crate) fn of_state(bytes: &'a [u8], now: Stamp) -> Self {
        Self {
            left: bytes,
            bytes: bytes.len(),
            now,
        }
    }

    /// The next tag, if there is one.
    pub(super) fn peek(&self) -> Option<u8> {
        self.left.first().copied()
    }

    /// How far it has come.
    pub(crate) fn position(&self) -> usize {
        self.bytes - self.left.len()
    }

    /// Whether all of it was read.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Nothing may follow.
    ///
    /// # Errors
    ///
    /// [`Flaw::TooLong`].
    pub fn end(&self) -> Result<(), Flaw> {
        match self.left.len() {
            0 => Ok(()),
            bytes => Err(Flaw::TooLong { bytes }),
        }
    }

    /// Which of a few things follows.
    ///
    /// # Errors
    ///
    /// [`Flaw::Cut`].
    pub fn tag(&mut self) -> Result<u8, Flaw> {
        let (tag, left) = self.left.split_first().ok_or(Flaw::Cut)?;
        self.left = left;
        Ok(*tag)
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// [`Flaw::Cut`] or [`Flaw::BadNumber`].
    pub fn number(&mut self) -> Result<u64, Flaw> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.tag()?;
            let bits = u64::from(byte & 0x7f);
            // Of the last byte only one bit fits.
            if bits << shift >> shift != bits {
                return Err(Flaw::BadNumber);
            }
            number |= bits << shift;
            if byte < 0x80 {
                let is_minimal = byte != 0 || shift == 0;
                return is_minimal.then_some(number).ok_or(Flaw::BadNumber);
            }
        }
        Err(Flaw::BadNumber)
    }

    /// A number of either sign.
    ///
    /// # Errors
    ///
    /// Those of [`Self::number`].
    pub fn signed(&mut self) -> Result<i64, Flaw> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// [`Flaw::NotUtf8`], and those of [`Self::blob`].
    pub fn text(&mut self) -> Result<&'a str, Flaw> {
        std::str::from_utf8(self.blob()?).map_err(|_| Flaw::NotUtf8)
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    ///
    /// [`Flaw::CountTooLarge`], and those of [`Self::number`].
    pub fn blob(&mut self) -> Result<&'a [u8], Flaw> {
        let length = self.count(1)?;
        let (bytes, left) = self.left.split_at_checked(length).ok_or(Flaw::Cut)?;
        self.left = left;
        Ok(bytes)
    }

    /// Bytes that are as long as they always are.
    ///
    /// # Errors
    ///
    /// [`Flaw::Cut`].
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (bytes, left) = self.left.split_first_chunk().ok_or(Flaw::Cut)?;
        self.left = left;
        Ok(*bytes)
    }

    /// How many items of at least so many bytes each.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Read<usize> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(items) if items <= self.left.len() / bytes_min => Ok(items),
            _ => Err(Flaw::CountTooLarge { count }),
        }
    }

    pub(crate) fn stamp(&mut self) -> Read<Stamp> {
        self.number().map(Stamp)
    }

    /// A stamp that the state has reached.
    pub(super) fn past(&mut self) -> Read<Stamp> {
        match self.stamp()? {
            stamp if stamp <= self.now => Ok(stamp),
            Stamp(stamp) => Err(Flaw::StampTooLate { stamp }),
        }
    }

    pub(super) fn place(&mut self) -> Read<Place> {
        Ok(Place {
            stamp: self.past()?,
            sequence: self.number()?,
        })
    }

    /// The number of a command's line, or of a command in its entry.
    pub(crate) fn line(&mut self) -> Read<u32> {
        self.narrow("line or ordinal")
    }

    /// A number that is not as large as it could be.
    pub(super) fn narrow<T: TryFrom<u64>>(&mut self, what: &'static str) -> Read<T> {
        let value = self.number()?;
        T::try_from(value).map_err(|_| Flaw::NumberOutOfRange { what, value })
    }

    pub(super) fn within(&mut self, what: &'static str, min: i64, max: i64) -> Read<i64> {
        match self.signed()? {
            value if (min..=max).contains(&value) => Ok(value),
            value => Err(Flaw::QuantityOutOfRange { what, value }),
        }
    }

    pub(super) fn sku(&mut self) -> Read<Sku> {
        Ok(Sku::new(self.text()?)?)
    }

    pub(super) fn ids(&mut self) -> Read<Vec<ReservationId>> {
        let count = self.count(16)?;
        let ids = (0..count).map(|_| Ok(ReservationId::new(self.fixed()?)?));
        ids.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        let mut writer = Writer::default();
        let numbers = [0, 1, 127, 128, 300, 1 << 35, u64::MAX];
        let signed = [0, -1, 1, -300, i64::MAX, i64::MIN];
        numbers.iter().for_each(|number| writer.number(*number));
        signed.iter().for_each(|number| writer.signed(*number));
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        for number in numbers {
            assert_eq!(reader.number(), Ok(number));
        }
        for number in signed {
            assert_eq!(reader.signed(), Ok(number));
        }
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn what_is_no_number_or_text_is_refused() {
        let number = |bytes: &[u8]| Reader::new(bytes).number();
        assert_eq!(number(&[]), Err(Flaw::Cut));
        assert_eq!(number(&[0xff; 9]), Err(Flaw::Cut));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(number(&most), Ok(u64::MAX));
        let mut more = most;
        more[9] = 2;
        assert_eq!(number(&more), Err(Flaw::BadNumber));
        assert_eq!(
            number(&[0x80, 0]),
            Err(Flaw::BadNumber),
            "longer than it need be"
        );
        let text = |bytes: &[u8]| Reader::new(bytes).text().map(str::to_owned);
        assert_eq!(
            text(&[3, b'a', b'b']),
            Err(Flaw::CountTooLarge { count: 3 })
        );
        assert_eq!(text(&[1, 0xff]), Err(Flaw::NotUtf8));
        assert_eq!(text(&most), Err(Flaw::CountTooLarge { count: u64::MAX }));
    }
}
