//! What a gRPC body says of its messages' lengths, read as it goes by.

/// Whether the message is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Follows a body from message to message, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Bytes up to the end of the message.
    left: usize,
    /// Messages that have begun, were it with a byte of their prefix.
    begun: u64,
}

/// A message has more bytes than one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) bytes: usize,
}

impl Prefixes {
    /// Takes note of what came. Says how many bytes the messages have that began in it, prefixes
    /// left out.
    pub(super) fn read(&mut self, mut bytes: &[u8], bytes_max: usize) -> Result<usize, TooLarge> {
        let mut announced = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.begun += u64::from(self.prefix_bytes == 0);
            let taken = (PREFIX_BYTES - self.prefix_bytes).min(bytes.len());
            let (prefix, rest) = bytes.split_at(taken);
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(prefix);
            self.prefix_bytes += taken;
            bytes = rest;
            if self.prefix_bytes == PREFIX_BYTES {
                let [_, a, b, c, d] = self.prefix;
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if length > bytes_max {
                    return Err(TooLarge { bytes: length });
                }
                self.prefix_bytes = 0;
                self.left = length;
                announced += length;
            }
        }
        Ok(announced)
    }

    /// Whether a message has begun and has yet to end.
    pub(super) fn is_inside(&self) -> bool {
        self.left > 0 || self.prefix_bytes > 0
    }

    /// How many messages have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        // What is inside a message is no prefix, whatever it looks like.
        bytes.resize(PREFIX_BYTES + length, 0xff);
        bytes
    }

    #[test]
    fn messages_are_followed_however_the_body_is_cut() {
        let body = [message(3), message(0), message(300), message(7)].concat();
        for step in [1, 2, 4, 5, 6, 100, body.len()] {
            let mut prefixes = Prefixes::default();
            let mut announced = 0;
            for (number, part) in body.chunks(step).enumerate() {
                announced += prefixes.read(part, 300).unwrap();
                let came = (number + 1) * step;
                assert!(came < body.len() || !prefixes.is_inside());
            }
            assert_eq!((announced, prefixes.begun()), (310, 4), "cut every {step}");
        }
    }

    #[test]
    fn one_that_is_too_large_is_found_by_its_prefix() {
        let body = message(301);
        let mut prefixes = Prefixes::default();
        assert_eq!(prefixes.read(&body[..4], 300), Ok(0));
        assert!(prefixes.is_inside());
        let too_large = TooLarge { bytes: 301 };
        assert_eq!(prefixes.read(&body[4..5], 300), Err(too_large));
    }
}
