//! The consumers of this process: their handles, their pending counts, and the notification that wakes them.

use crate::setting::{self, Code};
use crate::wide;
use etwsieve_tests::standin::Machine;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_CTX_CLOSE_PENDING, ERROR_INVALID_HANDLE, ERROR_INVALID_PARAMETER,
    ERROR_WMI_INSTANCE_NOT_FOUND,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    EVENT_RECORD, EVENT_TRACE_LOGFILEW, EVENT_TRACE_REAL_TIME_MODE, PROCESS_TRACE_MODE_EVENT_RECORD,
    PROCESS_TRACE_MODE_RAW_TIMESTAMP, PROCESS_TRACE_MODE_REAL_TIME,
};

/// The first handle. It is larger than any logger id.
const FIRST_HANDLE: u64 = 0x1_0000;

static CONSUMERS: Mutex<BTreeMap<u64, Arc<Consumer>>> = Mutex::new(BTreeMap::new());
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(FIRST_HANDLE);
static NOTIFICATIONS: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// The callback of a consumer.
pub(crate) type Callback = unsafe extern "system" fn(*mut EVENT_RECORD);

/// An opened session.
pub(crate) struct Consumer {
    /// Name of the session.
    pub(crate) name: String,
    /// Identifies the session among those of the same name.
    pub(crate) incarnation: u64,
    pub(crate) callback: Callback,
    /// `Context`, which becomes `UserContext` of each record. It is only passed back and never dereferenced.
    pub(crate) context: usize,
    pub(crate) is_processing: AtomicBool,
    pub(crate) is_closing: AtomicBool,
    /// Counts that have not been added to the session yet.
    pub(crate) pending: PendingCounts,
}

/// Counts that are added to a session from time to time.
#[derive(Default)]
pub(crate) struct PendingCounts {
    pub(crate) events_lost: AtomicU32,
    pub(crate) buffers_written: AtomicU32,
    /// The absolute position in the scenario; 0 if it has not changed.
    pub(crate) position: AtomicU64,
}

/// Implements `OpenTraceW`. Returns the handle.
///
/// # Safety
///
/// The name in `log_file` is null or a NUL-terminated string, and its callback may be called with its context on the
/// thread of `ProcessTrace` until the handle is closed.
pub(crate) unsafe fn open(log_file: &mut EVENT_TRACE_LOGFILEW) -> Result<u64, Code> {
    // SAFETY: every bit pattern is a valid number.
    let mode = unsafe { log_file.Anonymous1.ProcessTraceMode };
    // SAFETY: both callbacks are pointers to functions or null; the mode, which is checked below, determines the type.
    let callback = unsafe { log_file.Anonymous2.EventRecordCallback };
    // SAFETY: guaranteed by the caller.
    let name = unsafe { wide::text(log_file.LoggerName) };
    let needed = PROCESS_TRACE_MODE_REAL_TIME | PROCESS_TRACE_MODE_EVENT_RECORD;
    let (Some(callback), Some(name)) = (callback, name) else { return Err(Code(ERROR_INVALID_PARAMETER)) };
    if mode & needed != needed || mode & PROCESS_TRACE_MODE_RAW_TIMESTAMP != 0 {
        return Err(Code(ERROR_INVALID_PARAMETER));
    }
    let machine = setting::machine()?;
    if setting::scenario(&machine)?.deny_open {
        return Err(Code(ERROR_ACCESS_DENIED));
    }
    let session = machine.session(&name)?.ok_or(Code(ERROR_WMI_INSTANCE_NOT_FOUND))?;
    if session.log_file_mode & EVENT_TRACE_REAL_TIME_MODE == 0 {
        return Err(Code(ERROR_WMI_INSTANCE_NOT_FOUND));
    }
    let header = &mut log_file.LogfileHeader;
    header.BufferSize = session.buffer_size_kb * 1024;
    header.NumberOfProcessors = thread::available_parallelism().map_or(1, |count| count.get() as u32);
    header.LogFileMode = session.log_file_mode;
    header.PerfFreq = 10_000_000;
    header.ReservedFlags = 1;
    header.StartTime = setting::now().cast_signed();
    let consumer = Consumer {
        name: session.name,
        incarnation: session.incarnation,
        callback,
        context: log_file.Context as usize,
        is_processing: AtomicBool::new(false),
        is_closing: AtomicBool::new(false),
        pending: PendingCounts::default(),
    };
    let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
    consumers().insert(handle, Arc::new(consumer));
    Ok(handle)
}

/// Starts processing for the consumer of `handle`.
pub(crate) fn begin(handle: u64) -> Result<Arc<Consumer>, Code> {
    let consumers = consumers();
    let consumer = consumers.get(&handle).ok_or(Code(ERROR_INVALID_HANDLE))?;
    if consumer.is_processing.swap(true, Ordering::AcqRel) {
        return Err(Code(ERROR_INVALID_HANDLE));
    }
    Ok(Arc::clone(consumer))
}

/// Ends processing.
pub(crate) fn end(handle: u64, consumer: &Consumer) {
    let mut consumers = consumers();
    consumer.is_processing.store(false, Ordering::Release);
    if consumer.is_closing.load(Ordering::Acquire) {
        consumers.remove(&handle);
    }
}

/// Implements `CloseTrace`.
pub(crate) fn close(handle: u64) -> Result<(), Code> {
    let mut consumers = consumers();
    let consumer = consumers.get(&handle).ok_or(Code(ERROR_INVALID_HANDLE))?;
    if consumer.is_closing.swap(true, Ordering::AcqRel) {
        return Err(Code(ERROR_INVALID_HANDLE));
    }
    if consumer.is_processing.load(Ordering::Acquire) {
        drop(consumers);
        notify();
        return Err(Code(ERROR_CTX_CLOSE_PENDING));
    }
    consumers.remove(&handle);
    Ok(())
}

/// Adds the pending counts of all consumers of this process to the session.
pub(crate) fn flush_pending(machine: &Machine, name: &str) -> Result<(), Code> {
    let consumers: Vec<_> = consumers().values().cloned().collect();
    for consumer in consumers {
        if consumer.name.eq_ignore_ascii_case(name) {
            consumer.flush_pending(machine)?;
        }
    }
    Ok(())
}

impl Consumer {
    /// Adds the pending counts to the session, if it still exists.
    pub(crate) fn flush_pending(&self, machine: &Machine) -> Result<(), Code> {
        let events_lost = self.pending.events_lost.swap(0, Ordering::AcqRel);
        let buffers_written = self.pending.buffers_written.swap(0, Ordering::AcqRel);
        let position = self.pending.position.swap(0, Ordering::AcqRel);
        if events_lost > 0 || buffers_written > 0 || position > 0 {
            machine.alter(&self.name, |session| {
                if session.incarnation == self.incarnation {
                    session.events_lost += events_lost;
                    session.buffers_written += buffers_written;
                    session.position = session.position.max(position);
                }
            })?;
        }
        Ok(())
    }
}

/// Wakes all consumers after a change.
pub(crate) fn notify() {
    *NOTIFICATIONS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    NOTIFICATIONS.1.notify_all();
}

/// Returns the number of notifications so far.
pub(crate) fn generation() -> u64 {
    *NOTIFICATIONS.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until there are more than `seen` notifications, or for `limit`.
pub(crate) fn wait(seen: u64, limit: Duration) {
    let guard = NOTIFICATIONS.0.lock().unwrap_or_else(PoisonError::into_inner);
    drop(NOTIFICATIONS.1.wait_timeout_while(guard, limit, |count| *count == seen));
}

fn consumers() -> MutexGuard<'static, BTreeMap<u64, Arc<Consumer>>> {
    CONSUMERS.lock().unwrap_or_else(PoisonError::into_inner)
}
