//! Handles of consumers in this process, what they owe the machine, and the bell that wakes them.

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

/// Handles count upwards from here, so that none is a logger id.
const FIRST_HANDLE: u64 = 0x1_0000;

static CONSUMERS: Mutex<BTreeMap<u64, Arc<Consumer>>> = Mutex::new(BTreeMap::new());
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(FIRST_HANDLE);
static BELL: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// The callback of a consumer.
pub(crate) type Callback = unsafe extern "system" fn(*mut EVENT_RECORD);

/// An opened session.
pub(crate) struct Consumer {
    /// Name of the session.
    pub(crate) name: String,
    /// Which session of that name.
    pub(crate) incarnation: u64,
    pub(crate) callback: Callback,
    /// `Context`, for `UserContext` of each record. A number: it is handed back and never followed.
    pub(crate) context: usize,
    pub(crate) is_processing: AtomicBool,
    pub(crate) is_closing: AtomicBool,
    /// What the session in the machine does not know yet.
    pub(crate) owed: Owed,
}

/// Counts that are added to a session now and then.
#[derive(Default)]
pub(crate) struct Owed {
    pub(crate) events_lost: AtomicU32,
    pub(crate) buffers_written: AtomicU32,
    /// Not a difference: the place in the scenario, 0 for nothing new.
    pub(crate) position: AtomicU64,
}

/// As `OpenTraceW`. Returns the handle.
///
/// # Safety
///
/// The name in `log_file` is null or a NUL-terminated string, and its callback may be called with its context on the
/// thread of `ProcessTrace` until the handle is closed.
pub(crate) unsafe fn open(log_file: &mut EVENT_TRACE_LOGFILEW) -> Result<u64, Code> {
    // SAFETY: any bits are a number.
    let mode = unsafe { log_file.Anonymous1.ProcessTraceMode };
    // SAFETY: both callbacks are pointers to functions or null; the mode says which it is, and is checked below.
    let callback = unsafe { log_file.Anonymous2.EventRecordCallback };
    // SAFETY: promised by the caller.
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
        owed: Owed::default(),
    };
    let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
    consumers().insert(handle, Arc::new(consumer));
    Ok(handle)
}

/// Takes the consumer of `handle` for processing.
pub(crate) fn begin(handle: u64) -> Result<Arc<Consumer>, Code> {
    let consumers = consumers();
    let consumer = consumers.get(&handle).ok_or(Code(ERROR_INVALID_HANDLE))?;
    if consumer.is_processing.swap(true, Ordering::AcqRel) {
        return Err(Code(ERROR_INVALID_HANDLE));
    }
    Ok(Arc::clone(consumer))
}

/// Processing has ended.
pub(crate) fn end(handle: u64, consumer: &Consumer) {
    let mut consumers = consumers();
    consumer.is_processing.store(false, Ordering::Release);
    if consumer.is_closing.load(Ordering::Acquire) {
        consumers.remove(&handle);
    }
}

/// As `CloseTrace`.
pub(crate) fn close(handle: u64) -> Result<(), Code> {
    let mut consumers = consumers();
    let consumer = consumers.get(&handle).ok_or(Code(ERROR_INVALID_HANDLE))?;
    if consumer.is_closing.swap(true, Ordering::AcqRel) {
        return Err(Code(ERROR_INVALID_HANDLE));
    }
    if consumer.is_processing.load(Ordering::Acquire) {
        drop(consumers);
        ring();
        return Err(Code(ERROR_CTX_CLOSE_PENDING));
    }
    consumers.remove(&handle);
    Ok(())
}

/// Adds what the consumers of this process owe to the session.
pub(crate) fn settle(machine: &Machine, name: &str) -> Result<(), Code> {
    let consumers: Vec<_> = consumers().values().cloned().collect();
    for consumer in consumers {
        if consumer.name.eq_ignore_ascii_case(name) {
            consumer.settle(machine)?;
        }
    }
    Ok(())
}

impl Consumer {
    /// Adds what is owed to the session, if it still is there.
    pub(crate) fn settle(&self, machine: &Machine) -> Result<(), Code> {
        let events_lost = self.owed.events_lost.swap(0, Ordering::AcqRel);
        let buffers_written = self.owed.buffers_written.swap(0, Ordering::AcqRel);
        let position = self.owed.position.swap(0, Ordering::AcqRel);
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

/// Wakes all consumers: something has changed.
pub(crate) fn ring() {
    *BELL.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    BELL.1.notify_all();
}

/// How often the bell has rung.
pub(crate) fn rings() -> u64 {
    *BELL.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the bell has rung more than `seen` times, or for `limit`.
pub(crate) fn wait(seen: u64, limit: Duration) {
    let guard = BELL.0.lock().unwrap_or_else(PoisonError::into_inner);
    drop(BELL.1.wait_timeout_while(guard, limit, |rings| *rings == seen));
}

fn consumers() -> MutexGuard<'static, BTreeMap<u64, Arc<Consumer>>> {
    CONSUMERS.lock().unwrap_or_else(PoisonError::into_inner)
}
