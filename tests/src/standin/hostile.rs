//! Records that are as inconsistent as possible without violating the contract that makes reading them safe.
//!
//! Unless a pointer is null, it points to as many readable bytes as its length says. The memory after them is not readable,
//! so a program that reads further crashes.

use etwsieve_etl::item_type;

const ITEMS_MANY: usize = 40;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A kind of hostile record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Hostile {
            $($(#[$doc])* $kind,)*
        }

        impl Hostile {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name in a scenario.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// `UserData` is null, its length is 100.
    NullUserData = "null_user_data",
    /// `UserData` is not null, its length is 0.
    ZeroLength = "zero_length",
    /// 65,535 bytes, text without an end.
    MaxLength = "max_length",
    /// Text of an odd number of bytes.
    OddLength = "odd_length",
    /// Shorter than the numbers of a 4104.
    ShortNumbers = "short_numbers",
    /// Text without a final NUL.
    NoTerminator = "no_terminator",
    /// `UserData` at an odd address.
    Unaligned = "unaligned",
    /// Message number and total are negative.
    NegativeNumbers = "negative_numbers",
    /// Fragment 2,147,483,647 of 2,147,483,647.
    HugeTotal = "huge_total",
    /// Half a surrogate pair in the text.
    LoneSurrogate = "lone_surrogate",
    /// The item is shorter than its SID claims to be.
    SidShort = "sid_short",
    /// The item is longer than its SID.
    SidLong = "sid_long",
    /// The item of the SID is empty.
    SidEmpty = "sid_empty",
    /// The item of the SID has a size and no data.
    SidNull = "sid_null",
    /// A SID of 255 sub-authorities, in 28 bytes.
    SidCount255 = "sid_count_255",
    /// 40 items of unknown types.
    UnknownItems = "unknown_items",
    /// The record counts three items and has none.
    ItemsNull = "items_null",
    /// The flag for extended items is set, their number is 0.
    ItemsNone = "items_none",
    /// Process, thread and time stamp have all bits set.
    AllOnes = "all_ones",
    /// Time stamp 0.
    TimeZero = "time_zero",
    /// The time stamp is the greatest number.
    TimeMax = "time_max",
    /// Version 255 of the event.
    UnknownVersion = "unknown_version",
    /// Event id 65,535.
    UnknownEvent = "unknown_event",
    /// A provider that nobody enabled.
    ForeignProvider = "foreign_provider",
}

/// User data of a hostile record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserData {
    /// A null pointer with this length.
    Null(u16),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Extended items of a hostile record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items {
    /// A null pointer with this count.
    Null(u16),
    /// These: type, length, and data unless the pointer is null.
    Some(Vec<(u16, u16, Option<Vec<u8>>)>),
}

impl Hostile {
    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The user data.
    pub fn user_data(self) -> UserData {
        let block = |number: i32, total: i32, units: &[u16]| {
            UserData::Bytes(crate::writer::script_block(number, total, units, "an id", None))
        };
        let text: Vec<u16> = "Get-Date # hostile".encode_utf16().collect();
        let cut = |len: usize| match block(1, 1, &text) {
            UserData::Bytes(mut bytes) => {
                bytes.truncate(len);
                UserData::Bytes(bytes)
            }
            null @ UserData::Null(_) => null,
        };
        match self {
            Self::NullUserData => UserData::Null(100),
            Self::ZeroLength => UserData::Bytes(Vec::new()),
            Self::MaxLength => {
                let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
                bytes.extend([b'A', 0].into_iter().cycle().take(usize::from(u16::MAX) - 8));
                UserData::Bytes(bytes)
            }
            Self::OddLength => cut(8 + 2 * text.len() - 1),
            Self::ShortNumbers => cut(7),
            Self::NoTerminator => cut(8 + 2 * text.len()),
            Self::NegativeNumbers => block(-1, i32::MIN, &text),
            Self::HugeTotal => block(i32::MAX, i32::MAX, &text),
            Self::LoneSurrogate => block(1, 1, &[0x41, 0xD800, 0x42]),
            _ => block(1, 1, &text),
        }
    }

    /// The extended items.
    pub fn items(self) -> Items {
        let sid = |len: u16, data: Option<Vec<u8>>| Items::Some(vec![(item_type::SID, len, data)]);
        let local_system = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
        match self {
            Self::SidShort => sid(12, Some(vec![1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0])),
            Self::SidLong => sid(40, Some([&local_system[..], &[0xEE; 28]].concat())),
            Self::SidEmpty => sid(0, Some(Vec::new())),
            Self::SidNull => sid(28, None),
            Self::SidCount255 => sid(28, Some([&[1, 255, 0, 0, 0, 0, 0, 5][..], &[0x11; 20]].concat())),
            Self::UnknownItems => {
                Items::Some((0..ITEMS_MANY).map(|n| (1000 + n as u16, 4, Some(vec![n as u8; 4]))).collect())
            }
            Self::ItemsNull => Items::Null(3),
            _ => Items::Some(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hostile, Items, UserData};

    #[test]
    fn names_lead_back_and_lengths_are_true() {
        for &kind in Hostile::ALL {
            assert_eq!(Hostile::from_name(kind.name()), Some(kind));
            if let UserData::Bytes(bytes) = kind.user_data() {
                assert!(u16::try_from(bytes.len()).is_ok(), "{kind:?}");
            }
            if let Items::Some(items) = kind.items() {
                for (_, len, data) in items {
                    assert!(data.is_none_or(|data| data.len() == usize::from(len)), "{kind:?}");
                }
            }
        }
        assert_eq!(Hostile::from_name("friendly"), None);
    }
}
