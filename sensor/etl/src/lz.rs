//! Input, output and results of the three decompressors.

/// Why a decoder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The output is full.
    Full,
    /// The input ended before the output was full. The output is valid so far.
    InputEnded,
    /// The input violates the format or exceeds the output.
    Invalid,
}

/// The result of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Number of bytes written.
    pub(crate) written: usize,
    /// Number of bytes of input used.
    pub(crate) read: usize,
    pub(crate) end: End,
}

/// Reads a slice from start to end.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    /// Takes `len` bytes, or fewer at the end.
    pub(crate) fn take_up_to(&mut self, len: usize) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = &rest[..len.min(rest.len())];
        self.at += taken.len();
        taken
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let word = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_le_bytes(word))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let word = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(u32::from_le_bytes(word))
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// Number of bytes that [`Output`] copies at once if there is room for them.
const SHORT_LEN: usize = 16;

/// Writes to a slice, and copies from the part that was written.
pub(crate) struct Output<'a> {
    bytes: &'a mut [u8],
    pub(crate) at: usize,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Appends literals. Returns false and writes nothing if they do not fit.
    pub(crate) fn literals(&mut self, literals: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.at..self.at + literals.len()) else {
            return false;
        };
        room.copy_from_slice(literals);
        self.at += literals.len();
        true
    }

    pub(crate) fn literal(&mut self, byte: u8) -> bool {
        let Some(room) = self.bytes.get_mut(self.at) else {
            return false;
        };
        *room = byte;
        self.at += 1;
        true
    }

    /// Appends a copy of the `len` bytes that start `distance` bytes before the end; source and target may overlap.
    ///
    /// Returns false and writes nothing if the source starts before the output or the copy does not fit.
    ///
    /// # Complexity
    ///
    /// Linear in `len`. An overlapping copy doubles its source repeatedly, so a run of one byte is as fast as a plain
    /// copy.
    pub(crate) fn repeat(&mut self, distance: usize, len: usize) -> bool {
        if distance == 0 || distance > self.at || len > self.room() {
            return false;
        }
        let source = self.at - distance;
        // Most matches are short. A copy of fixed length uses one register; the next item overwrites excess bytes.
        let (written, room) = self.bytes.split_at_mut(self.at);
        if len <= SHORT_LEN
            && let Some(from) = written[source..].first_chunk::<SHORT_LEN>()
            && let Some(to) = room.first_chunk_mut()
        {
            *to = *from;
            self.at += len;
            return true;
        }
        let mut copied = 0;
        while copied < len {
            let step = (distance + copied).min(len - copied);
            self.bytes.copy_within(source..source + step, self.at + copied);
            copied += step;
        }
        self.at += len;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, Output};

    #[test]
    fn repeating_equals_a_byte_loop() {
        const START: usize = 20;
        for distance in 1..=START {
            for len in (0..=60).step_by(if cfg!(miri) { 5 } else { 1 }) {
                let mut bytes: Vec<u8> = (0..80).collect();
                let mut slow = bytes.clone();
                for i in START..START + len {
                    slow[i] = slow[i - distance];
                }
                let mut out = Output { bytes: &mut bytes, at: START };
                assert!(out.repeat(distance, len), "{distance} {len}");
                assert_eq!(out.at, START + len);
                // Bytes after the end are unspecified.
                assert_eq!(bytes[..START + len], slow[..START + len], "{distance} {len}");
            }
        }
    }

    #[test]
    fn copies_that_do_not_fit_are_rejected() {
        let mut bytes = [0; 8];
        let mut out = Output { bytes: &mut bytes, at: 4 };
        assert!(!out.repeat(5, 1), "before the start");
        assert!(!out.repeat(0, 1), "no distance");
        assert!(!out.repeat(1, 5), "beyond the end");
        assert!(!out.literals(&[0; 5]));
        assert_eq!(out.at, 4);
    }

    #[test]
    fn reads_beyond_the_input_return_none() {
        let mut input = Input::new(&[1, 2, 3]);
        assert_eq!(input.u32(), None);
        assert_eq!(input.u16(), Some(0x0201));
        assert_eq!(input.u16(), None);
        assert_eq!(input.take(2), None);
        assert_eq!(input.take_up_to(2), [3]);
        assert!(input.is_at_end());
    }
}
