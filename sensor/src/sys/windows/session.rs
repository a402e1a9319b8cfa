//! A real-time session on the PowerShell providers: started, taken over, processed, stopped.
//!
//! ferrisetw starts it and runs the callback; what it lacks is in [`control`]. A session outlives its process, so
//! its name is fixed: the next start finds what a crash has left, and stops it. A named mutex tells such a
//! session from one whose sensor runs.
#![expect(unsafe_code, reason = "a mutex of Windows, and a sink that is lent to the callback for its run")]

use super::control::{self, LEVEL, SessionState, Wanted, keywords};
use super::record::offer;
use crate::event::{AMSI, AMSI_SCAN, providers};
use crate::live::counters::SessionCounters;
use crate::live::settings::SessionSettings;
use crate::source::Sink;
use etwsieve_host::wide::wide;
use etwsieve_matcher::EventKind;
use ferrisetw::native::EvntraceNativeError;
use ferrisetw::provider::{EventFilter, Provider, TraceFlags};
use ferrisetw::trace::{LoggingMode, TraceError, TraceProperties, TraceTrait, UserTrace};
use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::{Uuid, uuid};
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_NO_SYSTEM_RESOURCES, GetLastError, HANDLE,
};
use windows_sys::Win32::System::Threading::CreateMutexW;

/// ETW's own provider of lost events and buffers in a real-time stream (`RT_LostEvent`).
const LOST_EVENT: Uuid = uuid!("6a399ae0-4bc6-4de9-870b-3657f8947e7e");

/// Why a session cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The account may not control sessions.
    #[error(
        "no right to {action} event tracing session {name:?}: start it from an elevated prompt, or as a member of \
         Performance Log Users, LocalService or LocalSystem"
    )]
    AccessDenied {
        /// What was tried.
        action: &'static str,
        /// The session.
        name: String,
    },
    /// Another sensor runs with this session.
    #[error(
        "session {name:?} belongs to a sensor that is running: stop that one (`etwsieve service stop`), or choose \
         another name with --session"
    )]
    Held {
        /// The session.
        name: String,
    },
    /// The machine runs as many sessions as it may.
    #[error(
        "no event tracing session is left on this machine: `logman query -ets` lists those that run; stop one, or \
         raise EtwMaxLoggers under HKLM\\SYSTEM\\CurrentControlSet\\Control\\WMI and restart"
    )]
    NoneLeft,
    /// Eight sessions, the most that Windows allows, have the provider enabled.
    #[error(
        "one of the providers (those of PowerShell, and that of AMSI if it was asked for) is enabled in eight sessions \
         already, the most that Windows allows: `logman query -ets` shows them; stop one of them"
    )]
    ProviderFull,
    /// Anything else.
    #[error("cannot {action} event tracing session {name:?}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The session.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

impl SessionError {
    fn new(action: &'static str, name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.raw_os_error().map(win32) {
            Some(ERROR_ACCESS_DENIED) => Self::AccessDenied { action, name },
            Some(ERROR_NO_SYSTEM_RESOURCES) => Self::NoneLeft,
            _ => Self::System { action, name, source },
        }
    }
}

/// The Windows error in an `HRESULT` of facility Win32 (0x8007….), or the code itself.
fn win32(code: i32) -> u32 {
    let code = code.cast_unsigned();
    if code >> 16 == 0x8007 { code & 0xFFFF } else { code }
}

/// A session that has been started.
pub struct Session {
    name: String,
    trace: UserTrace,
    state: SessionState,
    /// Whether a session that a crash had left was stopped first.
    taken_over: bool,
}

impl Session {
    /// Starts the session with both PowerShell providers, and if the settings say so the antimalware scanner's, enabled
    /// for these kinds of events. The claim is that on the
    /// name of the settings.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. No session is left behind.
    pub fn start(
        settings: &SessionSettings,
        kinds: &[EventKind],
        counters: &Arc<SessionCounters>,
        _claim: &Claim,
    ) -> Result<Self, SessionError> {
        let name = settings.name.as_str();
        // Nobody holds the name, so whoever started this session is gone.
        let left = control::stop(name).map_err(|error| SessionError::new("take over", name, error))?;
        let started = Self::builder(settings, kinds, counters).start();
        let (trace, _) = match started {
            Ok(started) => started,
            Err(error) => {
                let error = io_error(error);
                // ferrisetw leaves a session whose providers could not be enabled.
                let half_started = matches!(control::stop(name), Ok(Some(_)));
                let full = error.raw_os_error().map(win32) == Some(ERROR_NO_SYSTEM_RESOURCES);
                if half_started && full {
                    return Err(SessionError::ProviderFull);
                }
                return Err(SessionError::new("start", name, error));
            }
        };
        let state = control::query(name)
            .and_then(|state| state.ok_or_else(|| io::Error::other("it ended at once")))
            .map_err(|error| SessionError::new("query", name, error))?;
        counters.up.store(true, Ordering::Relaxed);
        Ok(Self { name: name.to_owned(), trace, state, taken_over: left.is_some() })
    }

    fn builder(
        settings: &SessionSettings,
        kinds: &[EventKind],
        counters: &Arc<SessionCounters>,
    ) -> ferrisetw::trace::TraceBuilder<UserTrace> {
        let mut mode = LoggingMode::EVENT_TRACE_REAL_TIME_MODE;
        mode.set(LoggingMode::EVENT_TRACE_INDEPENDENT_SESSION_MODE, settings.independent);
        mode.set(LoggingMode::EVENT_TRACE_NO_PER_PROCESSOR_BUFFERING, !settings.per_processor);
        let properties = TraceProperties {
            buffer_size: settings.buffer_kb,
            min_buffer: settings.min_buffers,
            max_buffer: settings.max_buffers,
            flush_timer: Duration::from_secs(settings.flush_seconds.into()),
            log_file_mode: mode,
        };
        let wanted = Wanted { kinds: kinds.to_vec(), user_sid: settings.user_sid };
        let flags =
            if settings.user_sid { TraceFlags::EVENT_ENABLE_PROPERTY_SID } else { TraceFlags::empty() };
        let mut trace = UserTrace::new().named(settings.name.clone()).set_trace_properties(properties);
        for provider in providers(settings.amsi) {
            let ids = match *provider {
                // Rules that are loaded later may be about it.
                AMSI => vec![AMSI_SCAN],
                _ => wanted.ids(provider).collect(),
            };
            trace = trace.enable(
                Provider::by_guid(ferrisetw::GUID::from_u128(provider.as_u128()))
                    .level(LEVEL)
                    .any(keywords(provider))
                    .trace_flags(flags)
                    .add_filter(EventFilter::ByEventIds(ids))
                    .add_callback(|record, _| with_sink(|sink| offer(record, sink)))
                    .build(),
            );
        }
        let counters = Arc::clone(counters);
        trace.enable(
            Provider::by_guid(ferrisetw::GUID::from_u128(LOST_EVENT.as_u128()))
                .add_callback(move |_, _| {
                    counters.lost_event_records.fetch_add(1, Ordering::Relaxed);
                })
                .build(),
        )
    }

    /// Whether a sensor that runs holds the session of this name.
    pub fn is_held(name: &str) -> bool {
        matches!(Claim::new(name), Err(SessionError::Held { .. }))
    }

    /// The session's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session as it was when it started.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Whether a session that a crash had left was stopped to make room for this one.
    pub fn was_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Gives every event to `sink`, on this thread, until somebody stops the session: [`control::stop`] by its
    /// name. What stands in its buffers then is still delivered.
    ///
    /// # Errors
    ///
    /// What `ProcessTrace` says.
    pub fn process(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        let _lent = Lent::new(sink);
        self.trace.process().map_err(io_error)
    }
}

fn io_error(error: TraceError) -> io::Error {
    match error {
        TraceError::EtwNativeError(EvntraceNativeError::IoError(error)) => match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(win32(code).cast_signed()),
            None => error,
        },
        TraceError::EtwNativeError(EvntraceNativeError::AlreadyExist) => {
            io::Error::from_raw_os_error(ERROR_ALREADY_EXISTS.cast_signed())
        }
        TraceError::EtwNativeError(EvntraceNativeError::InvalidHandle) => {
            io::Error::other("ETW gave an invalid handle")
        }
        TraceError::InvalidTraceName => io::Error::other("the name is invalid"),
    }
}

thread_local! {
    /// The sink of the `ProcessTrace` that runs on this thread.
    static SINK: Cell<Option<NonNull<dyn Sink>>> = const { Cell::new(None) };
}

/// A sink that is lent to the callbacks on this thread.
///
/// ferrisetw's callbacks must live as long as the program; a sink lives as long as a run. `ProcessTrace` calls
/// back on the thread that called it and returns when no callback runs, so the loan ends with it.
struct Lent;

impl Lent {
    fn new(sink: &mut dyn Sink) -> Self {
        // SAFETY: only the lifetime changes. The pointer is used by callbacks on this thread alone, while `process`
        // holds the borrow; `drop` takes it back before the borrow ends.
        let sink = unsafe { std::mem::transmute::<NonNull<dyn Sink + '_>, NonNull<dyn Sink>>(sink.into()) };
        SINK.set(Some(sink));
        Self
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        SINK.set(None);
    }
}

fn with_sink(use_it: impl FnOnce(&mut dyn Sink)) {
    if let Some(mut sink) = SINK.take() {
        // SAFETY: lent by `Lent`, on this thread; taken out of the cell, so that nobody else has it meanwhile.
        use_it(unsafe { sink.as_mut() });
        SINK.set(Some(sink));
    }
}

/// The right to a session's name on this machine, held while the sensor runs, between its sessions too.
pub struct Claim(HANDLE);

// SAFETY: a handle of a mutex may be closed by any thread; nothing else is done with it.
unsafe impl Send for Claim {}

impl Claim {
    /// Claims the name.
    ///
    /// # Errors
    ///
    /// [`SessionError::Held`] if another process has it.
    pub fn new(name: &str) -> Result<Self, SessionError> {
        let object = wide(&format!("Global\\etwsieve-session-{name}"));
        // SAFETY: `object` ends in NUL; no security attributes; the handle is closed on drop.
        let (handle, code) = unsafe { (CreateMutexW(std::ptr::null(), 0, object.as_ptr()), GetLastError()) };
        let held = || SessionError::Held { name: name.to_owned() };
        if handle.is_null() {
            // Another account's mutex, which we may not open.
            return Err(if code == ERROR_ACCESS_DENIED {
                held()
            } else {
                SessionError::new("claim", name, io::Error::from_raw_os_error(code.cast_signed()))
            });
        }
        let own = Self(handle);
        if code == ERROR_ALREADY_EXISTS { Err(held()) } else { Ok(own) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: our handle, closed once.
        unsafe { CloseHandle(self.0) };
    }
}
