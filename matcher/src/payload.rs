//! The payload of one event, and the place of a fragment in its script block.

use crate::field::{EventKind, Field, Fields};

/// A payload to search, with the process that wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The kind of event.
    pub kind: EventKind,
    /// The process that wrote the event. Together with the script block id it identifies a block.
    pub process_id: Option<u32>,
    /// User data as written, little-endian.
    pub bytes: &'a [u8],
}

/// The place of a fragment in its script block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Number of the fragment, normally from 1.
    pub message_number: i32,
    /// Number of fragments of the block.
    pub message_total: i32,
    /// The id that the fragments share, as UTF-16LE bytes.
    pub script_block_id: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Returns the fragment's place in its block; `None` for events without blocks and for truncated payloads.
    pub fn place(&self) -> Option<Place<'a>> {
        let fields = Fields::split(self.kind, self.bytes);
        Some(Place {
            message_number: fields.number(Field::MessageNumber)? as i32,
            message_total: fields.number(Field::MessageTotal)? as i32,
            script_block_id: fields.text(Field::ScriptBlockId)?,
        })
    }

    /// Returns the place of a fragment; `None` for an event that is a whole block, for other kinds, and for truncated
    /// payloads.
    pub fn fragment(&self) -> Option<Place<'a>> {
        if self.kind != EventKind::ScriptBlock {
            return None;
        }
        // Most events are part 1 of 1.
        let numbers: &[u8; 8] = self.bytes.first_chunk()?;
        if *numbers == [1, 0, 0, 0, 1, 0, 0, 0] {
            return None;
        }
        self.place()
    }
}
