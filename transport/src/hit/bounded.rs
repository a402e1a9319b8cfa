//! Deserialisation of strings and lists that checks the length before it allocates.
//!
//! serde's own `Vec` reserves up to 1 MiB for a length that is merely claimed. These functions reserve [`RESERVE_MAX`]
//! entries and grow as entries arrive.

use super::STRING_LEN_MAX;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Number of entries reserved before the first one is read.
const RESERVE_MAX: usize = 8;

pub(crate) fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(StringVisitor)
}

pub(crate) fn option_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<BoundedString>::deserialize(deserializer)?.map(|string| string.0))
}

pub(crate) fn strings<'de, const MAX: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let strings = vec::<MAX, BoundedString, D>(deserializer)?;
    Ok(strings.into_iter().map(|string| string.0).collect())
}

pub(crate) fn vec<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(VecVisitor::<MAX, T>(PhantomData))
}

struct BoundedString(String);

impl<'de> Deserialize<'de> for BoundedString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string(deserializer).map(Self)
    }
}

struct StringVisitor;

impl Visitor<'_> for StringVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of at most {STRING_LEN_MAX} bytes")
    }

    fn visit_str<E: Error>(self, string: &str) -> Result<String, E> {
        if string.len() > STRING_LEN_MAX {
            return Err(E::invalid_length(string.len(), &self));
        }
        Ok(string.to_owned())
    }
}

struct VecVisitor<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for VecVisitor<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let claimed = seq.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut entries = Vec::with_capacity(claimed.min(RESERVE_MAX));
        while let Some(entry) = seq.next_element()? {
            if entries.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
