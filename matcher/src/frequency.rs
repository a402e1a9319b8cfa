//! Frequencies: estimates how rare a needle is in script text.
//!
//! A needle is spelled with common words where it contains any, and with single bytes elsewhere, each with its
//! probability given its predecessor. The shortest spelling counts. Only the order of the estimates matters: of two
//! clauses, the rarer one is better for the gate.

mod table;

use memchr::memmem;
use std::sync::LazyLock;

/// Length of a needle that is examined; no longer needle is common.
const LEN_COUNTED: usize = 32;

/// Shorter needles are parts of too many words for this to say anything.
const WORD_PART_LEN_MIN: usize = 3;

/// Number of byte classes, including the one for all other bytes.
const CLASS_COUNT: usize = table::CLASSES.len() + 1;

/// Needles for which the estimate is higher count as equally rare.
const BITS_MAX: f64 = 60.0;

/// For each repetition of a character that is not a letter, as in rulers and indentation.
const RUN_BITS: f64 = 0.5;

/// Lookup structures made from the tables.
struct Tables {
    /// The class of each byte.
    classes: [u8; 256],
    words: Vec<Word>,
    /// For each pair of classes, the indices in `words` of the words that begin with it.
    by_start: Vec<Vec<usize>>,
}

struct Word {
    bytes: &'static [u8],
    bits: f64,
    /// Its offset in [`table::WORDS`].
    offset: usize,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let other = table::CLASSES.len() as u8;
    let mut classes = [other; 256];
    for (class, &byte) in (0u8..).zip(table::CLASSES) {
        classes[usize::from(byte)] = class;
    }
    let digit = classes[usize::from(b'0')];
    classes[usize::from(b'0')..=usize::from(b'9')].fill(digit);
    let mut tables = Tables { classes, words: Vec::new(), by_start: Vec::new() };
    tables.by_start.resize(CLASS_COUNT * CLASS_COUNT, Vec::new());
    let mut offset = 0;
    for entry in table::WORDS.split(' ') {
        if let Some((word, bits)) = entry.split_once('=')
            && let (Some(start), Ok(bits)) = (word.as_bytes().first_chunk(), bits.parse())
        {
            let pair = tables.pair(*start);
            tables.by_start[pair].push(tables.words.len());
            tables.words.push(Word { bytes: word.as_bytes(), bits, offset });
        }
        offset += entry.len() + 1;
    }
    tables
});

impl Tables {
    fn pair(&self, [first, second]: [u8; 2]) -> usize {
        usize::from(self.classes[usize::from(first)]) * CLASS_COUNT
            + usize::from(self.classes[usize::from(second)])
    }

    /// Returns the bits of the most common word that contains the needle.
    fn bits_as_part(&self, needle: &[u8]) -> Option<f64> {
        // The most common words come first.
        let at = memmem::find(table::WORDS.as_bytes(), needle)?;
        let word = self.words.partition_point(|word| word.offset <= at).checked_sub(1)?;
        Some(self.words[word].bits)
    }
}

/// Returns the estimated information of `needle` (folded ASCII) in bits: it occurs at a given position of a text with a
/// probability of about 2 to the power of minus this.
pub(crate) fn bits(needle: &[u8]) -> f64 {
    let tables = &*TABLES;
    let needle = &needle[..needle.len().min(LEN_COUNTED)];
    // shortest[i]: bits of the best spelling of the first i bytes.
    let mut shortest = [f64::INFINITY; LEN_COUNTED + 1];
    shortest[0] = 0.0;
    for at in 0..needle.len() {
        let byte = shortest[at] + byte_bits(tables, needle[..at].last().copied(), needle[at]);
        shortest[at + 1] = shortest[at + 1].min(byte);
        let rest = &needle[at..];
        let Some(start) = rest.first_chunk::<2>() else { continue };
        for &word in &tables.by_start[tables.pair(*start)] {
            let Word { bytes, bits, .. } = tables.words[word];
            if rest.starts_with(bytes) {
                let behind = at + bytes.len();
                shortest[behind] = shortest[behind].min(shortest[at] + bits);
            }
        }
    }
    let spelled = shortest[needle.len()].min(BITS_MAX);
    // A part of a common word is at least as common as the word.
    if needle.len() < WORD_PART_LEN_MIN {
        return spelled;
    }
    tables.bits_as_part(needle).map_or(spelled, |whole| spelled.min(whole))
}

/// Returns the estimated probability that a position of a narrowed text has this byte.
pub(crate) fn byte_likelihood(byte: u8) -> f64 {
    let likelihood = (-bits(&[byte])).exp2();
    match byte {
        // The table has one class for all digits.
        b'0'..=b'9' => likelihood / 10.0,
        // These bytes do not occur in narrowed text.
        b'A'..=b'Z' | 0x80..=0xFE => 0.0,
        _ => likelihood,
    }
}

fn byte_bits(tables: &Tables, before: Option<u8>, byte: u8) -> f64 {
    let class = |byte: u8| usize::from(tables.classes[usize::from(byte)]);
    let measured = match before {
        Some(before) if before == byte && !byte.is_ascii_alphabetic() => return RUN_BITS,
        Some(before) => table::BEHIND[class(before)][class(byte)],
        None => table::ALONE[class(byte)],
    };
    table_bits(measured)
}

fn table_bits(character: u8) -> f64 {
    f64::from(character.saturating_sub(b'0')) / 2.0
}

#[cfg(test)]
mod tests {
    use super::{TABLES, bits, table};

    #[test]
    fn rarer_needles_have_more_bits() {
        let rows = [
            ("enter-pssession", "-computername"),
            ("enter-pssession", "new-object"),
            ("function", "$"),
            ("invoke-x", "--------------------"),
            ("ab", "a"),
            ("`", " "),
            ("downloadstring", "tostring"),
            ("mimikatz", "parameter"),
            ("new-object net.webclient", "new-object"),
            ("amsiutils", ">"),
        ];
        for (rare, common) in rows {
            assert!(bits(rare.as_bytes()) > bits(common.as_bytes()), "{rare} {common}");
        }
    }

    #[test]
    fn the_tables_are_complete() {
        assert!(TABLES.words.len() > 200);
        for word in &TABLES.words {
            assert!(word.bytes.len() >= 4 && (8.0..=20.0).contains(&word.bits));
            assert!(table::WORDS.as_bytes()[word.offset..].starts_with(word.bytes));
        }
        assert!(TABLES.words.is_sorted_by(|a, b| a.bits <= b.bits));
        for needle in [&b""[..], b"\xFF", &[b'x'; 100], b"\0\x01"] {
            assert!(bits(needle).is_finite());
        }
        assert!(bits(b"") < f64::EPSILON);
    }
}
