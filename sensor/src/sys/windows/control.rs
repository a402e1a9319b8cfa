//! Control of event tracing sessions that ferrisetw lacks: query, stop by name, flush, providers, files.
#![expect(unsafe_code, reason = "the ETW controller functions take pointers to structures that end in names")]

use crate::event;
use crate::live::counters::LossCounts;
use etwsieve_host::wide::{text, wide};
use etwsieve_matcher::EventKind;
use std::io;
use std::mem::{offset_of, size_of};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, ERROR_SUCCESS, ERROR_WMI_INSTANCE_NOT_FOUND};
use windows_sys::Win32::System::Diagnostics::Etw::{
    CONTROLTRACE_HANDLE, ControlTraceW, ENABLE_TRACE_PARAMETERS, ENABLE_TRACE_PARAMETERS_VERSION_2,
    EVENT_CONTROL_CODE_DISABLE_PROVIDER, EVENT_CONTROL_CODE_ENABLE_PROVIDER, EVENT_ENABLE_PROPERTY_SID,
    EVENT_FILTER_DESCRIPTOR, EVENT_FILTER_TYPE_EVENT_ID, EVENT_TRACE_CONTROL, EVENT_TRACE_CONTROL_FLUSH,
    EVENT_TRACE_CONTROL_QUERY, EVENT_TRACE_CONTROL_STOP, EVENT_TRACE_FILE_MODE_SEQUENTIAL,
    EVENT_TRACE_INDEPENDENT_SESSION_MODE, EVENT_TRACE_NO_PER_PROCESSOR_BUFFERING, EVENT_TRACE_PROPERTIES,
    EnableTraceEx2, StartTraceW, WNODE_FLAG_TRACED_GUID,
};
use windows_sys::core::GUID;

/// Longest session or file name with its NUL, in UTF-16 units (`MAXLOGFILENAME` and `MAXSTR`, both 1,024).
const NAME_UNITS_MAX: usize = 1024;

/// Channel keyword of the Operational channel. With it PowerShell is not asked for the hex dumps of remoting
/// fragments that keyword 0, which means all, would make it write; events of keyword 0 pass any mask.
pub const KEYWORDS: u64 = 0x8000_0000_0000_0000;
/// Keywords of the antimalware scanner's events: `Event1` of its manifest, and the bit of its channel.
pub const AMSI_KEYWORDS: u64 = 0x8000_0000_0000_0001;
/// Verbose: script blocks that PowerShell itself finds harmless have it.
pub const LEVEL: u8 = 5;

/// The keywords for which a provider is enabled.
pub fn keywords(provider: &Uuid) -> u64 {
    if *provider == event::AMSI { AMSI_KEYWORDS } else { KEYWORDS }
}

/// `EVENT_TRACE_PROPERTIES` with room for both names behind it, as the controller functions want it.
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

/// A running session, as a query describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The handle, valid for control functions only.
    pub handle: u64,
    /// Size of a buffer, in KB.
    pub buffer_kb: u32,
    /// Buffers allocated now.
    pub buffers: u32,
    /// Mode flags (`EVENT_TRACE_…_MODE`).
    pub mode: u32,
    /// What was lost since the start.
    pub losses: LossCounts,
    /// The file it writes; empty for none.
    pub file: String,
}

impl SessionState {
    /// The number by which providers know the session.
    pub fn logger_id(&self) -> u16 {
        // The low half of a session handle; ETW hands providers the same number.
        self.handle as u16
    }
}

/// What a system call answered.
fn check(code: u32) -> io::Result<()> {
    if code == ERROR_SUCCESS { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}

/// Whether the error says that there is no such session.
pub fn is_no_session(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_WMI_INSTANCE_NOT_FOUND.cast_signed())
}

fn control(name: &str, code: EVENT_TRACE_CONTROL) -> io::Result<Box<Properties>> {
    let name = wide(name);
    let mut properties = Properties::new();
    // SAFETY: `name` ends in NUL; `properties` begins with the structure, says its whole size, and its two
    // offsets lie within it. Nothing of it is kept.
    let result = unsafe {
        let handle = CONTROLTRACE_HANDLE { Value: 0 };
        ControlTraceW(handle, name.as_ptr(), &raw mut properties.head, code)
    };
    // More data: a name did not fit; the numbers are there.
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

/// Asks a session for its state; `None` if there is none of this name.
///
/// # Errors
///
/// What the system says, such as access denied.
pub fn query(name: &str) -> io::Result<Option<SessionState>> {
    match control(name, EVENT_TRACE_CONTROL_QUERY) {
        Ok(properties) => Ok(Some(state(&properties))),
        Err(error) if is_no_session(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stops a session and returns its last state; `None` if there is none of this name.
///
/// # Errors
///
/// As [`query`].
pub fn stop(name: &str) -> io::Result<Option<SessionState>> {
    match control(name, EVENT_TRACE_CONTROL_STOP) {
        Ok(properties) => Ok(Some(state(&properties))),
        Err(error) if is_no_session(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hands over what stands in half-filled buffers.
///
/// # Errors
///
/// As [`query`], and if there is no such session.
pub fn flush(name: &str) -> io::Result<()> {
    control(name, EVENT_TRACE_CONTROL_FLUSH).map(drop)
}

/// Settings of a session that writes a file.
#[derive(Clone, Debug)]
pub struct FileSession<'a> {
    /// Name of the session.
    pub name: &'a str,
    /// The file, as an absolute path.
    pub path: &'a str,
    /// Largest size of the file in MB; 0 for no limit.
    pub size_max_mb: u32,
    /// Size of a buffer, in KB.
    pub buffer_kb: u32,
    /// Smallest number of buffers; 0 leaves it to ETW.
    pub min_buffers: u32,
    /// Seconds between two flushes.
    pub flush_seconds: u32,
    /// Whether each processor has buffers of its own.
    pub per_processor: bool,
}

/// Starts a session that writes a file in sequential mode, and returns its handle.
///
/// # Errors
///
/// What the system says; [`io::ErrorKind::AlreadyExists`] if the name is taken; invalid input if a name is too
/// long.
pub fn start_file(session: &FileSession<'_>) -> io::Result<u64> {
    let name = wide(session.name);
    let file = wide(session.path);
    if name.len() > NAME_UNITS_MAX || file.len() > NAME_UNITS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the name has more than {NAME_UNITS_MAX} characters"),
        ));
    }
    let mut properties = Properties::new();
    properties.file[..file.len()].copy_from_slice(&file);
    let head = &mut properties.head;
    head.Wnode.Flags = WNODE_FLAG_TRACED_GUID;
    // The performance counter: the clock that replays in the right order.
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
    // SAFETY: `name` ends in NUL, `properties` is as for `ControlTraceW`, `handle` may be written.
    check(unsafe { StartTraceW(&raw mut handle, name.as_ptr(), &raw mut properties.head) })?;
    Ok(handle.Value)
}

/// What a session wants from a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Kinds of events. None of those that the provider writes: it is disabled.
    pub kinds: Vec<EventKind>,
    /// Whether each event shall carry the user's SID.
    pub user_sid: bool,
}

impl Wanted {
    /// The ids of the events that are wanted from this provider.
    pub fn ids(&self, provider: &Uuid) -> impl Iterator<Item = u16> {
        let ids = self.kinds.iter().map(|kind| kind.event_id());
        ids.filter(|id| event::kind(provider, *id).is_some())
    }
}

/// Most ids of a filter (`MAX_EVENT_FILTER_EVENT_ID_COUNT`).
const FILTER_IDS_MAX: usize = 64;

/// `EVENT_FILTER_EVENT_ID` with its ids.
#[repr(C)]
struct IdFilter {
    filter_in: u8,
    reserved: u8,
    count: u16,
    ids: [u16; FILTER_IDS_MAX],
}

/// Enables a provider for the session of this handle, or changes what it is enabled for.
///
/// # Errors
///
/// What the system says: 1450 when eight sessions have the provider already.
pub fn enable(handle: u64, provider: &Uuid, wanted: &Wanted) -> io::Result<()> {
    let guid = guid(provider);
    let mut filter = IdFilter { filter_in: 1, reserved: 0, count: 0, ids: [0; FILTER_IDS_MAX] };
    for (own, id) in filter.ids.iter_mut().zip(wanted.ids(provider)) {
        *own = id;
        filter.count += 1;
    }
    let mut descriptor = EVENT_FILTER_DESCRIPTOR {
        Ptr: (&raw const filter).addr() as u64,
        Size: (offset_of!(IdFilter, ids) + 2 * usize::from(filter.count)) as u32,
        Type: EVENT_FILTER_TYPE_EVENT_ID,
    };
    let mut parameters = ENABLE_TRACE_PARAMETERS {
        Version: ENABLE_TRACE_PARAMETERS_VERSION_2,
        EnableProperty: if wanted.user_sid { EVENT_ENABLE_PROPERTY_SID } else { 0 },
        SourceId: guid,
        EnableFilterDesc: &raw mut descriptor,
        FilterDescCount: 1,
        ..ENABLE_TRACE_PARAMETERS::default()
    };
    let code = if filter.count == 0 {
        parameters.EnableFilterDesc = std::ptr::null_mut();
        parameters.FilterDescCount = 0;
        EVENT_CONTROL_CODE_DISABLE_PROVIDER
    } else {
        EVENT_CONTROL_CODE_ENABLE_PROVIDER
    };
    // SAFETY: all structures live until the call returns; it copies what it needs. `descriptor` says how much of
    // `filter` there is.
    check(unsafe {
        let handle = CONTROLTRACE_HANDLE { Value: handle };
        let (guid, parameters) = (&raw const guid, &raw const parameters);
        EnableTraceEx2(handle, guid, code, LEVEL, keywords(provider), 0, 0, parameters)
    })
}

fn guid(id: &Uuid) -> GUID {
    let (data1, data2, data3, data4) = id.as_fields();
    GUID { data1, data2, data3, data4: *data4 }
}
