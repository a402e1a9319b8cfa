//! A real-time session on the PowerShell providers.
//!
//! ferrisetw starts the session and runs the callback; [`control`] has the functions that it lacks. A session outlives
//! its process, so its name is fixed: the next start finds the session of a crashed sensor and stops it. A named mutex
//! distinguishes such a session from that of a running sensor.
#![expect(
    unsafe_code,
    reason = "a mutex of Windows, and a sink that the callback borrows while the session is processed"
)]

use super::control;
use super::record::offer;
use crate::event::{AMSI, AMSI_SCAN, providers};
use crate::live::counters::SessionCounters;
use crate::live::session::{EnableParameters, LEVEL, SessionState, keywords};
use crate::live::settings::SessionSettings;
use crate::source::Sink;
use etwsieve_event::provider::LOST_EVENT;
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
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_NO_SYSTEM_RESOURCES, GetLastError, HANDLE,
};
use windows_sys::Win32::System::Threading::CreateMutexW;

/// Why a session cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The account may not control sessions.
    #[error(
        "no right to {action} event tracing session {name:?}: run etwsieve from an elevated prompt, or as a member of \
         Performance Log Users, LocalService or LocalSystem"
    )]
    AccessDenied {
        /// The action that failed.
        action: &'static str,
        /// The session.
        name: String,
    },
    /// A running sensor uses this session.
    #[error(
        "session {name:?} belongs to a running sensor: stop that sensor (`etwsieve service stop`), or choose another name \
         with --session"
    )]
    Held {
        /// The session.
        name: String,
    },
    /// All sessions that the machine allows are in use.
    #[error(
        "all event tracing sessions of this machine are in use: stop one (`logman query -ets` lists them), or raise \
         EtwMaxLoggers under HKLM\\SYSTEM\\CurrentControlSet\\Control\\WMI and restart"
    )]
    NoneLeft,
    /// Eight sessions, the maximum on Windows, have the provider enabled.
    #[error(
        "a PowerShell or AMSI provider is already enabled in eight sessions, the maximum on Windows: stop one \
         (`logman query -ets` lists them)"
    )]
    ProviderFull,
    /// Any other error.
    #[error("cannot {action} event tracing session {name:?}: {source}")]
    System {
        /// The action that failed.
        action: &'static str,
        /// The session.
        name: String,
        /// The error of the system.
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

/// Returns the Windows error in an `HRESULT` of facility Win32 (0x8007….), or the code itself.
fn win32(code: i32) -> u32 {
    let code = code.cast_unsigned();
    if code >> 16 == 0x8007 { code & 0xFFFF } else { code }
}

/// A session that has been started.
pub(super) struct Session {
    trace: UserTrace,
    state: SessionState,
    /// True if a session that a crashed sensor left behind was stopped first.
    taken_over: bool,
}

impl Session {
    /// Starts the session and enables both PowerShell providers in it, and the antimalware scanner's if the settings
    /// say so, for these kinds of events. `_claim` is the claim on the session's name.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. No session is left behind.
    pub(super) fn start(
        settings: &SessionSettings,
        kinds: &[EventKind],
        counters: &Arc<SessionCounters>,
        _claim: &Claim,
    ) -> Result<Self, SessionError> {
        let name = settings.name.as_str();
        // No running sensor holds the name, so an existing session was left behind.
        let left_behind = control::stop(name).map_err(|error| SessionError::new("take over", name, error))?;
        let started = Self::builder(settings, kinds, counters).start();
        let (trace, _) = match started {
            Ok(started) => started,
            Err(error) => {
                let error = io_error(error);
                // ferrisetw does not stop a session whose providers could not be enabled.
                let half_started = matches!(control::stop(name), Ok(Some(_)));
                let full = error.raw_os_error().map(win32) == Some(ERROR_NO_SYSTEM_RESOURCES);
                if half_started && full {
                    return Err(SessionError::ProviderFull);
                }
                return Err(SessionError::new("start", name, error));
            }
        };
        let state = control::query(name)
            .and_then(|state| state.ok_or_else(|| io::Error::other("it stopped at once")))
            .map_err(|error| SessionError::new("query", name, error))?;
        counters.up.store(true, Ordering::Relaxed);
        Ok(Self { trace, state, taken_over: left_behind.is_some() })
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
        let parameters = EnableParameters { kinds: kinds.to_vec(), user_sid: settings.user_sid };
        let flags =
            if settings.user_sid { TraceFlags::EVENT_ENABLE_PROPERTY_SID } else { TraceFlags::empty() };
        let mut trace = UserTrace::new().named(settings.name.clone()).set_trace_properties(properties);
        for provider in providers(settings.amsi) {
            let ids = match *provider {
                // Rules that are loaded later may search these events.
                AMSI => vec![AMSI_SCAN],
                _ => parameters.ids(provider).collect(),
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

    /// Returns whether a running sensor has claimed this name.
    pub(super) fn is_held(name: &str) -> bool {
        matches!(Claim::new(name), Err(SessionError::Held { .. }))
    }

    /// Returns the state of the session when it started.
    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// Returns whether a session that a crashed sensor left behind was stopped first.
    pub(super) fn was_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Delivers every event to `sink` on this thread until the session is stopped, for example by [`control::stop`].
    /// Events that are in its buffers at that time are still delivered.
    ///
    /// # Errors
    ///
    /// The error of `ProcessTrace`.
    pub(super) fn process(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        let _scope = ScopedSink::new(sink);
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
            io::Error::other("ETW returned an invalid handle")
        }
        TraceError::InvalidTraceName => io::Error::other("the session name is invalid"),
    }
}

thread_local! {
    /// The sink of the `ProcessTrace` call that runs on this thread.
    static SINK: Cell<Option<NonNull<dyn Sink>>> = const { Cell::new(None) };
}

/// Makes a sink available to the callbacks on this thread until it is dropped.
///
/// ferrisetw requires `'static` callbacks, but a sink lives only as long as a run. `ProcessTrace` runs the callbacks on
/// the thread that called it and returns when no callback runs, so the sink outlives them.
struct ScopedSink;

impl ScopedSink {
    fn new(sink: &mut dyn Sink) -> Self {
        // SAFETY: only the lifetime changes. Only callbacks on this thread use the pointer, while `process` holds the
        // borrow, and `drop` removes it before the borrow ends.
        let sink = unsafe { std::mem::transmute::<NonNull<dyn Sink + '_>, NonNull<dyn Sink>>(sink.into()) };
        SINK.set(Some(sink));
        Self
    }
}

impl Drop for ScopedSink {
    fn drop(&mut self) {
        SINK.set(None);
    }
}

fn with_sink(use_it: impl FnOnce(&mut dyn Sink)) {
    if let Some(mut sink) = SINK.take() {
        // SAFETY: `ScopedSink` set the pointer on this thread and keeps it valid. It is taken out of the cell, so no
        // other reference to the sink exists meanwhile.
        use_it(unsafe { sink.as_mut() });
        SINK.set(Some(sink));
    }
}

/// The exclusive use of a session name on this machine. A sensor holds it as long as it runs, also between two
/// sessions.
pub(super) struct Claim(HANDLE);

// SAFETY: any thread may close the handle of a mutex, and nothing else is done with it.
unsafe impl Send for Claim {}

impl Claim {
    /// Claims the name.
    ///
    /// # Errors
    ///
    /// [`SessionError::Held`] if another process has claimed it.
    pub(super) fn new(name: &str) -> Result<Self, SessionError> {
        let object = wide(&format!("Global\\etwsieve-session-{name}"));
        // SAFETY: `object` ends in NUL, and null means default security. The handle is closed on drop.
        let (handle, code) = unsafe { (CreateMutexW(std::ptr::null(), 0, object.as_ptr()), GetLastError()) };
        let held = || SessionError::Held { name: name.to_owned() };
        if handle.is_null() {
            // The mutex belongs to another account, which denies access.
            return Err(if code == ERROR_ACCESS_DENIED {
                held()
            } else {
                SessionError::new("claim", name, io::Error::from_raw_os_error(code.cast_signed()))
            });
        }
        let claim = Self(handle);
        if code == ERROR_ALREADY_EXISTS { Err(held()) } else { Ok(claim) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: this value owns the handle, which is closed once.
        unsafe { CloseHandle(self.0) };
    }
}
