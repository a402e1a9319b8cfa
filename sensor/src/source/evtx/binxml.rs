//! BinXML: the token stream in which an event log record stores its XML.
//!
//! [`walk`](Walker::walk) reads the stream of one record and reports the elements, attributes and values of the XML to
//! a [`Visitor`], with template substitutions and nested fragments in their places. Nothing is decoded or copied:
//! values are slices of the chunk, so UTF-16 text is unchanged, including lone surrogates. (The crate `evtx` replaces
//! lone surrogates, and its syntax tree is private.)
//!
//! | token | body |
//! |---|---|
//! | 00 | end of the stream |
//! | 01, 41 | open element: in templates u16 dependency; u32 size, name, with 41 u32 size of the attributes |
//! | 02, 03, 04 | end of the start tag; of an empty element; of an element |
//! | 05, 45 | value: u8 type, then the value |
//! | 06, 46 | attribute: name |
//! | 07, 47 | CDATA: u16 units, text |
//! | 08, 48 | character reference: u16 |
//! | 09, 49 | entity reference: name |
//! | 0A, 0B | processing instruction: name; u16 units, text |
//! | 0C | template instance: u8, u32 id, u32 offset of the definition, values |
//! | 0D, 0E | substitution, optional substitution: u16 index, u8 type |
//! | 0F | fragment header: three bytes |
//!
//! Names are u32 offsets into the chunk, to u32 next name, u16 hash, u16 units, text, u16 zero. The first use of a name
//! stores it directly after the offset. Source: MS-EVEN6 2.2.12, and the format document of libevtx for the layout of
//! the chunks that Windows writes.
//!
//! Work is bounded: each token is charged to the budget of the record every time it is read, also if a template is used
//! repeatedly, and the visitor charges its own work on names and values.

use super::input::{BinXmlError, Input, Name, Value, kind};
use super::record::RecordError;
use etwsieve_budget::{Budget, Exhausted};
use std::ops::{ControlFlow, Range};

/// Steps of a token, including the comparison of a name with known names.
const TOKEN_STEPS: usize = 16;
/// Steps of reading a value of a template instance.
const VALUE_STEPS: usize = 4;
/// Maximum nesting of streams: a record, its template, a fragment in a value, its template, and so on.
const NESTING_MAX: usize = 8;
/// Length of a template definition before its stream: u32 next, GUID, u32 size.
const DEFINITION_HEADER_LEN: usize = 24;
/// The dependency of an element that depends on no substitution.
const NO_DEPENDENCY: u16 = 0xFFFF;

/// Receives the parts of the XML in order.
pub(super) trait Visitor<'c> {
    /// A start tag begins.
    fn open(&mut self, name: Name<'c>);
    /// An attribute of that tag begins.
    fn attribute(&mut self, name: Name<'c>);
    /// The start tag ends, the content begins.
    fn content(&mut self);
    /// A value, or a part of one, of the attribute or the content. Charges its work to the budget.
    fn value(&mut self, value: Value<'c>, budget: &mut Budget<'_>) -> Result<(), Exhausted>;
    /// The element ends. `Break` ends the walk.
    fn close(&mut self) -> ControlFlow<()>;
}

/// Why a walk ended early.
enum Interrupt {
    /// The visitor needs no more.
    Done,
    Unreadable(BinXmlError),
    Exhausted(Exhausted),
}

impl From<BinXmlError> for Interrupt {
    fn from(error: BinXmlError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Exhausted> for Interrupt {
    fn from(reason: Exhausted) -> Self {
        Self::Exhausted(reason)
    }
}

/// Walks the records of one chunk.
pub(super) struct Walker<'c> {
    chunk: &'c [u8],
    /// Substitution values of the templates that are being read, the innermost last.
    values: Vec<Value<'c>>,
}

impl<'c> Walker<'c> {
    pub(super) fn new(chunk: &'c [u8]) -> Self {
        Self { chunk, values: Vec::new() }
    }

    /// Reads the stream at `range` of the chunk.
    ///
    /// # Errors
    ///
    /// [`RecordError`] at the first token that is invalid or exceeds the budget. The visitor has received everything
    /// before it.
    pub(super) fn walk(
        &mut self,
        range: Range<usize>,
        visitor: &mut impl Visitor<'c>,
        budget: &mut Budget<'_>,
    ) -> Result<(), RecordError> {
        self.values.clear();
        match self.stream(range, None, 0, visitor, budget) {
            Ok(()) | Err(Interrupt::Done) => Ok(()),
            Err(Interrupt::Unreadable(error)) => Err(error.into()),
            Err(Interrupt::Exhausted(reason)) => Err(reason.into()),
        }
    }

    /// Reads one stream. `values` are the substitutions if it is the stream of a template.
    fn stream(
        &mut self,
        range: Range<usize>,
        values: Option<&Range<usize>>,
        nesting: usize,
        visitor: &mut impl Visitor<'c>,
        budget: &mut Budget<'_>,
    ) -> Result<(), Interrupt> {
        let mut input = Input::new(self.chunk, range)?;
        if nesting > NESTING_MAX {
            return Err(input.unexpected("no deeper nesting", nesting).into());
        }
        let mut open = 0usize;
        // Depth of an element whose dependency is null: Windows shows neither the element nor its contents.
        let mut hidden: Option<usize> = None;
        while !input.is_empty() {
            budget.charge(TOKEN_STEPS)?;
            let token = input.u8()?;
            match token {
                0x00 => break,
                0x01 | 0x41 => {
                    let dependency = if values.is_some() { input.u16()? } else { NO_DEPENDENCY };
                    input.u32()?;
                    let name = input.name()?;
                    if token == 0x41 {
                        input.u32()?;
                    }
                    open += 1;
                    if hidden.is_none() {
                        let on = self.substitution(values, dependency);
                        if on.is_some_and(|value| value.kind == kind::NULL) {
                            hidden = Some(open);
                        } else {
                            visitor.open(name);
                        }
                    }
                }
                0x02 if hidden.is_none() => visitor.content(),
                0x02 => {}
                0x03 | 0x04 => {
                    if open == 0 {
                        return Err(input.unexpected("an open element", usize::from(token)).into());
                    }
                    if hidden == Some(open) {
                        hidden = None;
                    } else if hidden.is_none() && visitor.close().is_break() {
                        return Err(Interrupt::Done);
                    }
                    open -= 1;
                }
                0x06 | 0x46 => {
                    let name = input.name()?;
                    if hidden.is_none() {
                        visitor.attribute(name);
                    }
                }
                0x0A => {
                    input.name()?;
                }
                0x0B => {
                    input.text()?;
                }
                0x0C => self.instance(&mut input, hidden.is_some(), nesting, visitor, budget)?,
                0x0F => {
                    input.take(3)?;
                }
                _ => {
                    let value = match token {
                        0x05 | 0x45 => input.value()?,
                        0x07 | 0x47 => input.text()?,
                        0x08 | 0x48 => input.units(1)?,
                        0x09 | 0x49 => input.entity()?,
                        0x0D | 0x0E => {
                            let index = input.u16()?;
                            input.u8()?;
                            match self.substitution(values, index) {
                                Some(value) => value,
                                None => return Err(input.unexpected("a value", usize::from(index)).into()),
                            }
                        }
                        _ => return Err(input.unexpected("a token", usize::from(token)).into()),
                    };
                    match value.kind {
                        _ if hidden.is_some() => {}
                        kind::NULL => {}
                        kind::BINXML => {
                            let range = value.at..value.at + value.bytes.len();
                            self.stream(range, None, nesting + 1, visitor, budget)?;
                        }
                        _ => visitor.value(value, budget)?,
                    }
                }
            }
        }
        if open > 0 { Err(input.unexpected("the end of an element", open).into()) } else { Ok(()) }
    }

    /// Reads the values of a template instance, and then the template with these values.
    fn instance(
        &mut self,
        input: &mut Input<'c>,
        hidden: bool,
        nesting: usize,
        visitor: &mut impl Visitor<'c>,
        budget: &mut Budget<'_>,
    ) -> Result<(), Interrupt> {
        input.u8()?;
        input.u32()?;
        let definition = input.u32()? as usize;
        let mut header = Input::new(self.chunk, definition..self.chunk.len())?;
        header.take(DEFINITION_HEADER_LEN - 4)?;
        let len = header.u32()? as usize;
        let body = header.at..header.at + header.take(len)?.len();
        if definition == input.at {
            // The first use of a template contains its definition.
            input.take(DEFINITION_HEADER_LEN + len)?;
        }
        let count = input.u32()? as usize;
        let table = input.take(count.saturating_mul(4))?;
        let first = self.values.len();
        let values = table.len() / 4;
        budget.charge(VALUE_STEPS * values)?;
        budget.allocate(values * size_of::<Value<'_>>())?;
        for descriptor in table.as_chunks::<4>().0 {
            let len = usize::from(u16::from_le_bytes([descriptor[0], descriptor[1]]));
            let at = input.at;
            self.values.push(Value { kind: descriptor[2], bytes: input.take(len)?, at });
        }
        if !hidden {
            self.stream(body, Some(&(first..self.values.len())), nesting + 1, visitor, budget)?;
        }
        self.values.truncate(first);
        Ok(())
    }

    fn substitution(&self, values: Option<&Range<usize>>, index: u16) -> Option<Value<'c>> {
        self.values.get(values?.clone())?.get(usize::from(index)).copied()
    }
}
