//! The exported functions as declared in `evntrace.h`. They catch panics and check pointers before dereferencing them.

use crate::properties::Properties;
use crate::setting::Code;
use crate::{consumer, enable, process, query, session, wide};
use etwsieve_tests::standin::Enabled;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use windows_sys::Win32::Foundation::{
    ERROR_BAD_LENGTH, ERROR_INTERNAL_ERROR, ERROR_INVALID_PARAMETER, ERROR_SUCCESS, FILETIME, SetLastError,
    WIN32_ERROR,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    CONTROLTRACE_HANDLE, ENABLE_TRACE_PARAMETERS, EVENT_TRACE_LOGFILEW, EVENT_TRACE_PROPERTIES,
    PROCESSTRACE_HANDLE, TRACE_QUERY_INFO_CLASS, TraceGuidQueryInfo,
};
use windows_sys::core::{GUID, PCWSTR};

/// Maximum number of handles of `ProcessTrace`.
const HANDLES_MAX: u32 = 64;
const INVALID_HANDLE: u64 = u64::MAX;

// Layout of this structure on x86-64.
const _: () = assert!(std::mem::offset_of!(EVENT_TRACE_LOGFILEW, Anonymous2) == 424);
const _: () = assert!(std::mem::offset_of!(EVENT_TRACE_LOGFILEW, Context) == 440);

fn guarded<T>(work: impl FnOnce() -> Result<T, Code>) -> Result<T, u32> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|code| code.0),
        Err(_) => Err(ERROR_INTERNAL_ERROR),
    }
}

fn status(work: impl FnOnce() -> Result<(), Code>) -> WIN32_ERROR {
    guarded(work).err().unwrap_or(ERROR_SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "system" fn StartTraceW(
    handle: *mut CONTROLTRACE_HANDLE,
    name: PCWSTR,
    properties: *mut EVENT_TRACE_PROPERTIES,
) -> WIN32_ERROR {
    status(|| {
        let refused = Code(ERROR_INVALID_PARAMETER);
        // SAFETY: by contract null or the place for a handle.
        let handle = unsafe { handle.as_mut() }.ok_or(refused)?;
        // SAFETY: by contract null or a NUL-terminated string.
        let name = unsafe { wide::text(name) }.ok_or(refused)?;
        // SAFETY: by contract null or a structure that tells its size.
        let mut properties = unsafe { Properties::new(properties)? };
        session::start(handle, &name, &mut properties)
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn ControlTraceW(
    handle: CONTROLTRACE_HANDLE,
    name: PCWSTR,
    properties: *mut EVENT_TRACE_PROPERTIES,
    code: u32,
) -> WIN32_ERROR {
    status(|| {
        // SAFETY: by contract null or a NUL-terminated string.
        let name = unsafe { wide::text(name) };
        // SAFETY: by contract null or a structure that tells its size.
        let mut properties = unsafe { Properties::new(properties)? };
        session::control(handle, name.as_deref(), &mut properties, code)
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn EnableTraceEx2(
    handle: CONTROLTRACE_HANDLE,
    provider: *const GUID,
    code: u32,
    level: u8,
    any_keyword: u64,
    all_keyword: u64,
    _timeout: u32,
    parameters: *const ENABLE_TRACE_PARAMETERS,
) -> WIN32_ERROR {
    status(|| {
        // SAFETY: by contract null or a GUID.
        let provider = unsafe { provider.as_ref() }.ok_or(Code(ERROR_INVALID_PARAMETER))?;
        // SAFETY: by contract null or the structure with its filters.
        let asked = unsafe { enable::parameters(parameters)? };
        let enabled = Enabled { level, any_keyword, all_keyword, ..asked };
        enable::control(handle, wide::uuid(provider), code, enabled)
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn OpenTraceW(log_file: *mut EVENT_TRACE_LOGFILEW) -> PROCESSTRACE_HANDLE {
    let opened = guarded(|| {
        // SAFETY: by contract null or the structure.
        let log_file = unsafe { log_file.as_mut() }.ok_or(Code(ERROR_INVALID_PARAMETER))?;
        // SAFETY: by contract the name is a string, and the callback stays callable until `CloseTrace`.
        unsafe { consumer::open(log_file) }
    });
    let value = opened.unwrap_or_else(|code| {
        // SAFETY: sets a number of this thread.
        unsafe { SetLastError(code) };
        INVALID_HANDLE
    });
    PROCESSTRACE_HANDLE { Value: value }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn ProcessTrace(
    handles: *const PROCESSTRACE_HANDLE,
    count: u32,
    _start: *const FILETIME,
    _end: *const FILETIME,
) -> WIN32_ERROR {
    status(|| {
        if count == 0 || count > HANDLES_MAX {
            return Err(Code(ERROR_BAD_LENGTH));
        }
        if handles.is_null() || count != 1 {
            return Err(Code(ERROR_INVALID_PARAMETER));
        }
        // SAFETY: by contract the pointer, which is not null, addresses `count` handles.
        let handle = unsafe { handles.read_unaligned() }.Value;
        let consumer = consumer::begin(handle)?;
        // The handle is released even after a panic.
        let result = catch_unwind(AssertUnwindSafe(|| process::process(&consumer)));
        consumer::end(handle, &consumer);
        result.unwrap_or(Err(Code(ERROR_INTERNAL_ERROR)))
    })
}

#[unsafe(no_mangle)]
extern "system" fn CloseTrace(handle: PROCESSTRACE_HANDLE) -> WIN32_ERROR {
    status(|| consumer::close(handle.Value))
}

#[unsafe(no_mangle)]
unsafe extern "system" fn QueryAllTracesW(
    array: *const *mut EVENT_TRACE_PROPERTIES,
    count: u32,
    found: *mut u32,
) -> WIN32_ERROR {
    status(|| {
        // SAFETY: by contract null or a number.
        let found = unsafe { found.as_mut() }.ok_or(Code(ERROR_INVALID_PARAMETER))?;
        // SAFETY: by contract `count` pointers to structures that tell their sizes.
        unsafe { query::all(array, count, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn EnumerateTraceGuidsEx(
    class: TRACE_QUERY_INFO_CLASS,
    input: *const c_void,
    input_len: u32,
    out: *mut c_void,
    room: u32,
    needed: *mut u32,
) -> WIN32_ERROR {
    status(|| {
        // SAFETY: by contract null or `input_len` bytes.
        let guid = unsafe { query::input(input.cast(), input_len) };
        let bytes = query::guids(class, guid.filter(|_| class == TraceGuidQueryInfo))?;
        // SAFETY: by contract null or `room` bytes, and null or a number.
        unsafe { query::answer(&bytes, out.cast(), room, needed, false) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn TraceQueryInformation(
    _handle: CONTROLTRACE_HANDLE,
    class: TRACE_QUERY_INFO_CLASS,
    out: *mut c_void,
    room: u32,
    needed: *mut u32,
) -> WIN32_ERROR {
    status(|| {
        let bytes = query::information(class)?;
        // SAFETY: by contract null or `room` bytes, and null or a number.
        unsafe { query::answer(&bytes, out.cast(), room, needed, true) }
    })
}
