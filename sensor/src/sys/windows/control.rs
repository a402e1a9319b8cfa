//! Control functions for event tracing sessions that ferrisetw lacks: query, stop by name, enable a provider, record to
//! a file.
#![expect(unsafe_code, reason = "the ETW controller functions take pointers to structures that end in names")]

use crate::live::counters::LossCounts;
use crate::live::session::{EnableParameters, LEVEL, SessionState, keywords};
use etwsieve_host::wide::{text, wide};
use std::io;
use std::mem::{offset_of, size_of};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, ERROR_SUCCESS, ERROR_WMI_INSTANCE_NOT_FOUND};
use windows_sys::Win32::System::Diagnostics::Etw::{
    CONTROLTRACE_HANDLE, ControlTraceW, ENABLE_TRACE_PARAMETERS, ENABLE_TRACE_PARAMETERS_VERSION_2,
    EVENT_CONTROL_CODE_DISABLE_PROVIDER, EVENT_CONTROL_CODE_ENABLE_PROVIDER, EVENT_ENABLE_PROPERTY_SID,
    EVENT_FILTER_DESCRIPTOR, EVENT_FILTER_TYPE_EVENT_ID, EVENT_TRACE_CONTROL, EVENT_TRACE_CONTROL_QUERY,
    EVENT_TRACE_CONTROL_STOP, EVENT_TRACE_FILE_MODE_SEQUENTIAL, EVENT_TRACE_INDEPENDENT_SESSION_MODE,
    EVENT_TRACE_NO_PER_PROCESSOR_BUFFERING, EVENT_TRACE_PROPERTIES, EnableTraceEx2, StartTraceW,
    WNODE_FLAG_TRACED_GUID,
};
use windows_sys::core::GUID;

/// Maximum length of a session or file name with its NUL, in UTF-16 units (`MAXLOGFILENAME` and `MAXSTR`, both 1,024).
const NAME_UNITS_MAX: usize = 1024;

/// `EVENT_TRACE_PROPERTIES` followed by room for both names, as the control functions require.
#[repr(C)]
struct Properties {
    head: EVENT_TRACE_PROPERTIES,
    session: [u16; NAME_UNITS_MAX],
    file: [u16; NAME_UNITS_MAX],
}

impl Properties {
    fn new() -> Box<Self> {
        let mut own = Box::new(Self {
            head: EVENT_TRACE_PROPERTIES::default(),
            session: [0; NAME_UNITS_MAX],
            file: [0; NAME_UNITS_MAX],
        });
        own.head.Wnode.BufferSize = size_of::<Self>() as u32;
        own.head.LoggerNameOffset = offset_of!(Self, session) as u32;
        own.head.LogFileNameOffset = offset_of!(Self, file) as u32;
        own
    }
}

/// Converts the return code of a control function.
fn check(code: u32) -> io::Result<()> {
    if code == ERROR_SUCCESS { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}

/// Returns whether the error means that no such session exists.
fn is_no_session(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_WMI_INSTANCE_NOT_FOUND.cast_signed())
}

fn control(name: &str, code: EVENT_TRACE_CONTROL) -> io::Result<Box<Properties>> {
    let name = wide(name);
    let mut properties = Properties::new();
    // SAFETY: `name` ends in NUL. `properties` begins with the structure, which states its whole size and whose two
    // offsets lie within it. The function keeps no pointer.
    let result = unsafe {
        let handle = CONTROLTRACE_HANDLE { Value: 0 };
        ControlTraceW(handle, name.as_ptr(), &raw mut properties.head, code)
    };
    // More data: a name did not fit, but the numbers are complete.
    if result != ERROR_MORE_DATA {
        check(result)?;
    }
    Ok(properties)
}

fn state(properties: &Properties) -> SessionState {
    let head = &properties.head;
    SessionState {
        // SAFETY: both members of the union are plain numbers of the same size.
        handle: unsafe { head.Wnode.Anonymous1.HistoricalContext },
        buffer_kb: head.BufferSize,
        buffers: head.NumberOfBuffers,
        mode: head.LogFileMode,
        losses: LossCounts {
            events: head.EventsLost.into(),
            real_time_buffers: head.RealTimeBuffersLost.into(),
            log_buffers: head.LogBuffersLost.into(),
            buffers_written: head.BuffersWritten.into(),
        },
        file: text(&properties.file),
    }
}

/// Queries the state of a session; `None` if the session does not exist.
///
/// # Errors
///
/// The error of the system, such as access denied.
pub(super) fn query(name: &str) -> io::Result<Option<SessionState>> {
    match control(name, EVENT_TRACE_CONTROL_QUERY) {
        Ok(properties) => Ok(Some(state(&properties))),
        Err(error) if is_no_session(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stops a session and returns its last state; `None` if the session does not exist.
///
/// # Errors
///
/// As [`query`].
pub(super) fn stop(name: &str) -> io::Result<Option<SessionState>> {
    match control(name, EVENT_TRACE_CONTROL_STOP) {
        Ok(properties) => Ok(Some(state(&properties))),
        Err(error) if is_no_session(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Settings of a session that writes a file.
#[derive(Clone, Debug)]
pub(super) struct FileSession<'a> {
    /// Name of the session.
    pub(super) name: &'a str,
    /// The file, as an absolute path.
    pub(super) path: &'a str,
    /// Maximum size of the file in MB; 0 for no limit.
    pub(super) size_max_mb: u32,
    /// Size of a buffer, in KB.
    pub(super) buffer_kb: u32,
    /// Minimum number of buffers; 0 lets ETW decide.
    pub(super) min_buffers: u32,
    /// Seconds after which a partly filled buffer is flushed.
    pub(super) flush_seconds: u32,
    /// Each processor has separate buffers.
    pub(super) per_processor: bool,
}

/// Starts a session that writes a file in sequential mode, and returns its handle.
///
/// # Errors
///
/// The error of the system: [`io::ErrorKind::AlreadyExists`] if the name is in use. Invalid input if a name is too
/// long.
pub(super) fn start_file(session: &FileSession<'_>) -> io::Result<u64> {
    let name = wide(session.name);
    let file = wide(session.path);
    if name.len() > NAME_UNITS_MAX || file.len() > NAME_UNITS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the session or file name has more than {NAME_UNITS_MAX} characters"),
        ));
    }
    let mut properties = Properties::new();
    properties.file[..file.len()].copy_from_slice(&file);
    let head = &mut properties.head;
    head.Wnode.Flags = WNODE_FLAG_TRACED_GUID;
    // The performance counter is the clock whose time stamps order events exactly.
    head.Wnode.ClientContext = 1;
    head.BufferSize = session.buffer_kb;
    head.MinimumBuffers = session.min_buffers;
    head.MaximumFileSize = session.size_max_mb;
    head.FlushTimer = session.flush_seconds;
    head.LogFileMode = EVENT_TRACE_FILE_MODE_SEQUENTIAL | EVENT_TRACE_INDEPENDENT_SESSION_MODE;
    if !session.per_processor {
        head.LogFileMode |= EVENT_TRACE_NO_PER_PROCESSOR_BUFFERING;
    }
    let mut handle = CONTROLTRACE_HANDLE { Value: 0 };
    // SAFETY: `name` ends in NUL, `properties` is laid out as for `ControlTraceW`, and `handle` is writable.
    check(unsafe { StartTraceW(&raw mut handle, name.as_ptr(), &raw mut properties.head) })?;
    Ok(handle.Value)
}

/// Maximum number of ids in a filter (`MAX_EVENT_FILTER_EVENT_ID_COUNT`).
const FILTER_IDS_MAX: usize = 64;

/// `EVENT_FILTER_EVENT_ID` with room for all ids.
#[repr(C)]
struct IdFilter {
    filter_in: u8,
    reserved: u8,
    count: u16,
    ids: [u16; FILTER_IDS_MAX],
}

/// Enables a provider in the session with this handle, or changes the parameters of a provider that is enabled.
///
/// # Errors
///
/// The error of the system: 1450 if eight sessions have enabled the provider already.
pub(super) fn enable(handle: u64, provider: &Uuid, parameters: &EnableParameters) -> io::Result<()> {
    let guid = guid(provider);
    let mut filter = IdFilter { filter_in: 1, reserved: 0, count: 0, ids: [0; FILTER_IDS_MAX] };
    for (slot, id) in filter.ids.iter_mut().zip(parameters.ids(provider)) {
        *slot = id;
        filter.count += 1;
    }
    let mut descriptor = EVENT_FILTER_DESCRIPTOR {
        Ptr: (&raw const filter).addr() as u64,
        Size: (offset_of!(IdFilter, ids) + 2 * usize::from(filter.count)) as u32,
        Type: EVENT_FILTER_TYPE_EVENT_ID,
    };
    let mut trace_parameters = ENABLE_TRACE_PARAMETERS {
        Version: ENABLE_TRACE_PARAMETERS_VERSION_2,
        EnableProperty: if parameters.user_sid { EVENT_ENABLE_PROPERTY_SID } else { 0 },
        SourceId: guid,
        EnableFilterDesc: &raw mut descriptor,
        FilterDescCount: 1,
        ..ENABLE_TRACE_PARAMETERS::default()
    };
    let code = if filter.count == 0 {
        trace_parameters.EnableFilterDesc = std::ptr::null_mut();
        trace_parameters.FilterDescCount = 0;
        EVENT_CONTROL_CODE_DISABLE_PROVIDER
    } else {
        EVENT_CONTROL_CODE_ENABLE_PROVIDER
    };
    // SAFETY: all structures live until the call returns, and it copies what it needs. `descriptor` states how many
    // bytes of `filter` are used.
    check(unsafe {
        let handle = CONTROLTRACE_HANDLE { Value: handle };
        let (guid, parameters) = (&raw const guid, &raw const trace_parameters);
        EnableTraceEx2(handle, guid, code, LEVEL, keywords(provider), 0, 0, parameters)
    })
}

fn guid(id: &Uuid) -> GUID {
    let (data1, data2, data3, data4) = id.as_fields();
    GUID { data1, data2, data3, data4: *data4 }
}
