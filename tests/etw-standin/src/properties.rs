//! `EVENT_TRACE_PROPERTIES` of a caller, with the space for names after it.

use crate::setting::Code;
use crate::wide;
use etwsieve_tests::standin::Session;
use windows_sys::Win32::Foundation::{ERROR_BAD_LENGTH, ERROR_INVALID_PARAMETER};
use windows_sys::Win32::System::Diagnostics::Etw::EVENT_TRACE_PROPERTIES;

const HEADER_LEN: usize = size_of::<EVENT_TRACE_PROPERTIES>();

/// The properties, borrowed for one call.
pub(crate) struct Properties {
    at: *mut EVENT_TRACE_PROPERTIES,
    len: usize,
}

impl Properties {
    /// # Errors
    ///
    /// 87 for a null pointer, 24 if the size is too small for the structure.
    ///
    /// # Safety
    ///
    /// `at` is null or points to `Wnode.BufferSize` bytes, which nothing else uses during the call.
    pub(crate) unsafe fn new(at: *mut EVENT_TRACE_PROPERTIES) -> Result<Self, Code> {
        if at.is_null() || !at.is_aligned() {
            return Err(Code(ERROR_INVALID_PARAMETER));
        }
        // SAFETY: the caller guarantees at least this field.
        let len = unsafe { (*at).Wnode.BufferSize } as usize;
        if len < HEADER_LEN {
            return Err(Code(ERROR_BAD_LENGTH));
        }
        Ok(Self { at, len })
    }

    /// The structure.
    pub(crate) fn get(&self) -> &EVENT_TRACE_PROPERTIES {
        // SAFETY: `new` has checked pointer, alignment and length; plain numbers are valid in any state.
        unsafe { &*self.at }
    }

    fn get_mut(&mut self) -> &mut EVENT_TRACE_PROPERTIES {
        // SAFETY: as in `get`; the borrow of `self` makes it the only one.
        unsafe { &mut *self.at }
    }

    /// Returns whether `units` UTF-16 units and a NUL fit at `offset`.
    pub(crate) fn has_room(&self, offset: u32, units: usize) -> bool {
        let offset = offset as usize;
        offset >= HEADER_LEN && offset.is_multiple_of(2) && offset.saturating_add(2 * (units + 1)) <= self.len
    }

    /// Returns the text at `offset`, up to its NUL; `None` if there is no NUL within the size.
    pub(crate) fn text(&self, offset: u32) -> Option<String> {
        if !self.has_room(offset, 0) {
            return None;
        }
        let len = (self.len - offset as usize) / 2;
        // SAFETY: `has_room` keeps it behind the structure and within its size, aligned to 2.
        let units =
            unsafe { std::slice::from_raw_parts(self.at.cast::<u16>().add(offset as usize / 2), len) };
        let end = units.iter().position(|unit| *unit == 0)?;
        Some(String::from_utf16_lossy(&units[..end]))
    }

    /// Writes a text. Returns false if it does not fit.
    fn put_text(&mut self, offset: u32, text: &str) -> bool {
        let mut units: Vec<u16> = text.encode_utf16().collect();
        if !self.has_room(offset, units.len()) {
            return false;
        }
        units.push(0);
        // SAFETY: `has_room` has counted the NUL.
        unsafe {
            let to = self.at.cast::<u16>().add(offset as usize / 2);
            std::ptr::copy_nonoverlapping(units.as_ptr(), to, units.len());
        }
        true
    }

    /// Writes the properties of the session. Returns false if a requested name does not fit.
    pub(crate) fn fill(&mut self, session: &Session) -> bool {
        let properties = self.get_mut();
        properties.Wnode.Anonymous1.HistoricalContext = u64::from(session.logger_id);
        properties.Wnode.Guid = wide::guid_of(&session.guid);
        properties.BufferSize = session.buffer_size_kb;
        properties.MinimumBuffers = session.minimum_buffers;
        properties.MaximumBuffers = session.maximum_buffers;
        properties.MaximumFileSize = session.maximum_file_size_mb;
        properties.LogFileMode = session.log_file_mode;
        properties.FlushTimer = session.flush_timer_s;
        properties.NumberOfBuffers = session.minimum_buffers;
        properties.FreeBuffers = session.minimum_buffers.saturating_sub(1);
        properties.EventsLost = session.events_lost;
        properties.BuffersWritten = session.buffers_written;
        properties.LogBuffersLost = session.log_buffers_lost;
        properties.RealTimeBuffersLost = session.real_time_buffers_lost;
        let (name, file) = (properties.LoggerNameOffset, properties.LogFileNameOffset);
        let has_name = name == 0 || self.put_text(name, &session.name);
        let has_file = file == 0 || self.put_text(file, &session.log_file_name);
        has_name && has_file
    }
}
