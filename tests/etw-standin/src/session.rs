//! Starting and controlling sessions.

use crate::consumer;
use crate::properties::Properties;
use crate::setting::{self, Code};
use crate::wide;
use etwsieve_tests::standin::{Machine, SESSIONS_MAX, Session, write_log_file};
use std::path::Path;
use std::thread;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_BAD_LENGTH, ERROR_BAD_PATHNAME, ERROR_INVALID_PARAMETER,
    ERROR_MORE_DATA, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_SUPPORTED, ERROR_WMI_INSTANCE_NOT_FOUND,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    CONTROLTRACE_HANDLE, EVENT_TRACE_BUFFERING_MODE, EVENT_TRACE_CONTROL_FLUSH, EVENT_TRACE_CONTROL_QUERY,
    EVENT_TRACE_CONTROL_STOP, EVENT_TRACE_CONTROL_UPDATE, EVENT_TRACE_FILE_MODE_CIRCULAR,
    EVENT_TRACE_FILE_MODE_NEWFILE, EVENT_TRACE_FILE_MODE_SEQUENTIAL, EVENT_TRACE_REAL_TIME_MODE,
    WNODE_FLAG_TRACED_GUID,
};

const BUFFER_SIZE_KB_MIN: u32 = 4;
const BUFFER_SIZE_KB_MAX: u32 = 16_384;
const BUFFER_SIZE_KB_DEFAULT: u32 = 64;
const BUFFERS_PER_PROCESSOR_MIN: u32 = 2;
/// Windows adds at least this number of buffers to the minimum.
const BUFFERS_EXTRA: u32 = 20;

/// Implements `StartTraceW`.
pub(crate) fn start(
    handle: &mut CONTROLTRACE_HANDLE,
    name: &str,
    properties: &mut Properties,
) -> Result<(), Code> {
    handle.Value = 0;
    let mut session = requested(name, properties)?;
    let machine = setting::machine()?;
    let scenario = setting::scenario(&machine)?;
    if scenario.deny_start {
        return Err(Code(ERROR_ACCESS_DENIED));
    }
    if !session.log_file_name.is_empty() {
        // Windows creates the file at once, which fails without its folder.
        std::fs::File::create(&session.log_file_name)?;
    }
    let started = setting::now();
    session.incarnation = started ^ u64::from(session.process_id) << 40;
    session = machine.insert(session.clone(), |others| {
        let is_same = |other: &Session| {
            other.name.eq_ignore_ascii_case(name) || !session.guid.is_empty() && other.guid == session.guid
        };
        if others.iter().any(is_same) {
            Err(Code(ERROR_ALREADY_EXISTS))
        } else if others.len() + scenario.other_sessions >= SESSIONS_MAX {
            Err(Code(ERROR_NO_SYSTEM_RESOURCES))
        } else {
            Ok(())
        }
    })?;
    handle.Value = u64::from(session.logger_id);
    properties.fill(&session);
    Ok(())
}

/// Returns the requested session.
fn requested(name: &str, properties: &Properties) -> Result<Session, Code> {
    let given = properties.get();
    let refused = Err(Code(ERROR_INVALID_PARAMETER));
    if name.is_empty() || given.Wnode.Flags & WNODE_FLAG_TRACED_GUID == 0 || given.LoggerNameOffset == 0 {
        return refused;
    }
    if !properties.has_room(given.LoggerNameOffset, name.encode_utf16().count()) {
        return Err(Code(ERROR_BAD_LENGTH));
    }
    let buffer_size_kb = if given.BufferSize == 0 { BUFFER_SIZE_KB_DEFAULT } else { given.BufferSize };
    if !(BUFFER_SIZE_KB_MIN..=BUFFER_SIZE_KB_MAX).contains(&buffer_size_kb) {
        return refused;
    }
    let mode = given.LogFileMode;
    let is_circular = mode & EVENT_TRACE_FILE_MODE_CIRCULAR != 0;
    if is_circular && mode & EVENT_TRACE_FILE_MODE_SEQUENTIAL != 0 {
        return refused;
    }
    if (is_circular || mode & EVENT_TRACE_FILE_MODE_NEWFILE != 0) && given.MaximumFileSize == 0 {
        return refused;
    }
    let log_file_name = match given.LogFileNameOffset {
        0 => String::new(),
        offset => properties.text(offset).ok_or(Code(ERROR_INVALID_PARAMETER))?,
    };
    if log_file_name.is_empty() && mode & (EVENT_TRACE_REAL_TIME_MODE | EVENT_TRACE_BUFFERING_MODE) == 0 {
        return Err(Code(ERROR_BAD_PATHNAME));
    }
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let minimum_buffers = given.MinimumBuffers.max(BUFFERS_PER_PROCESSOR_MIN * processors);
    let guid = wide::uuid(&given.Wnode.Guid);
    Ok(Session {
        name: name.to_owned(),
        guid: if guid.is_nil() { String::new() } else { guid.to_string() },
        buffer_size_kb,
        minimum_buffers,
        maximum_buffers: given.MaximumBuffers.max(minimum_buffers + BUFFERS_EXTRA),
        flush_timer_s: given.FlushTimer,
        log_file_mode: mode,
        maximum_file_size_mb: given.MaximumFileSize,
        log_file_name,
        process_id: std::process::id(),
        ..Session::default()
    })
}

/// Implements `ControlTraceW`, by name if there is one, otherwise by handle.
pub(crate) fn control(
    handle: CONTROLTRACE_HANDLE,
    name: Option<&str>,
    properties: &mut Properties,
    code: u32,
) -> Result<(), Code> {
    let machine = setting::machine()?;
    let scenario = setting::scenario(&machine)?;
    if code == EVENT_TRACE_CONTROL_QUERY && scenario.deny_query {
        return Err(Code(ERROR_ACCESS_DENIED));
    }
    let gone = Code(ERROR_WMI_INSTANCE_NOT_FOUND);
    let name = match name {
        Some(name) => name.to_owned(),
        None => by_handle(&machine, handle)?.ok_or(gone)?.name,
    };
    consumer::flush_pending(&machine, &name)?;
    let session = match code {
        EVENT_TRACE_CONTROL_QUERY => machine.session(&name)?.ok_or(gone)?,
        EVENT_TRACE_CONTROL_STOP => {
            let session = machine.stop(&name)?.ok_or(gone)?;
            consumer::notify();
            if !session.log_file_name.is_empty() {
                let elapsed = setting::since(session.enabled_at);
                write_log_file(Path::new(&session.log_file_name), &session, &scenario, elapsed)?;
            }
            session
        }
        EVENT_TRACE_CONTROL_UPDATE | EVENT_TRACE_CONTROL_FLUSH => {
            let given = properties.get();
            let is_there = machine.alter(&name, |session| {
                if code == EVENT_TRACE_CONTROL_FLUSH {
                    session.flushes += 1;
                    return;
                }
                session.flush_timer_s = given.FlushTimer;
                if given.MaximumBuffers > session.minimum_buffers {
                    session.maximum_buffers = given.MaximumBuffers;
                }
            })?;
            consumer::notify();
            machine.session(&name)?.filter(|_| is_there).ok_or(gone)?
        }
        _ => return Err(Code(ERROR_NOT_SUPPORTED)),
    };
    if properties.fill(&session) { Ok(()) } else { Err(Code(ERROR_MORE_DATA)) }
}

/// Returns the session with this handle.
pub(crate) fn by_handle(machine: &Machine, handle: CONTROLTRACE_HANDLE) -> Result<Option<Session>, Code> {
    let mut sessions = machine.sessions()?.into_iter();
    Ok(sessions.find(|session| u64::from(session.logger_id) == handle.Value))
}
