//! Sequences of bytes without which there is nothing to fold and no call to read.
//!
//! They are few and short, so that one pass finds them; what they may mean is decided from their context.

use crate::scan::triggers::{ByteSets, NOT_ASCII_MIN};
use crate::view::call::Names;
use crate::view::chars::is_word;

/// A method of strings.
pub(super) const METHODS: u8 = 1;
/// `+` between operands.
pub(super) const PLUS: u8 = 1 << 1;
/// Operators, and the parameter `-EncodedCommand`.
pub(super) const OPERATORS: u8 = 1 << 2 | 1 << 3 | 1 << 4;
/// `}${`, and casts to characters or negative indices.
pub(super) const BRACES: u8 = 1 << 5;
/// Static methods, and the end of `base64`.
pub(super) const STATIC: u8 = 1 << 6;
/// The names of cmdlets.
pub(super) const NAMES: u8 = 1 << 7;

/// Returns the sequences, in the order of the bits above.
pub(super) fn sequences(names: &Names) -> [ByteSets; 8] {
    let set = <[u8]>::to_vec;
    let of = |first: [&[u8]; 3], last: Option<&[u8]>| ByteSets { first: first.map(set), last: last.map(set) };
    // Characters that may precede `+`: the end of a string or index, a closing parenthesis, and the end of a name.
    let word = (1..NOT_ASCII_MIN).filter(|byte| is_word(u16::from(*byte)));
    let operand: Vec<u8> = word.chain(set(b"'\")]` \t\r\n\x0b\x0c")).collect();
    [
        of([b"'\")", b".", b"rsti'\""], Some(b"epuonrsti")),
        of([&operand, b"+", b"'\"($` \t\r\n\x0b\x0c"], None),
        of([b"-", b"f", b"'\"([@ \t\r\n\x0b\x0c"], None),
        of([b"-", b"rci", b"er"], Some(b"pe")),
        of([b"-", b"ej", b"onc'\": \t\x0b\x0c"], None),
        of([b"[}", b"c-$", b"h{0123456789"], None),
        of([b":s", b":e", b"rmjf6"], Some(b"eao4")),
        names.byte_sets(),
    ]
}
