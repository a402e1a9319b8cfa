//! Queries about the whole machine.

use crate::properties::Properties;
use crate::setting::{self, Code};
use crate::wide;
use etwsieve_event::provider::{AMSI, POWERSHELL, POWERSHELL_CORE};
use etwsieve_tests::standin::{SESSIONS_MAX, Session};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{
    ERROR_BAD_LENGTH, ERROR_INSUFFICIENT_BUFFER, ERROR_INVALID_PARAMETER, ERROR_MORE_DATA,
    ERROR_NOT_SUPPORTED, ERROR_WMI_GUID_NOT_FOUND,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    EVENT_TRACE_PROPERTIES, TRACE_QUERY_INFO_CLASS, TraceGuidQueryInfo, TraceGuidQueryList,
    TraceMaxLoggersQuery,
};
use windows_sys::core::GUID;

/// Providers that a process of the machine has registered: PowerShell 5 and 7, AMSI.
const REGISTERED: [Uuid; 3] = [POWERSHELL, POWERSHELL_CORE, AMSI];
const PROVIDER_PROCESS: u32 = 4242;
/// Logger ids of sessions that the scenario only counts.
const OTHER_LOGGER_ID: u16 = 128;

/// Implements `QueryAllTracesW`.
///
/// # Safety
///
/// `array` is null or points to `count` pointers, each as in [`Properties::new`].
pub(crate) unsafe fn all(
    array: *const *mut EVENT_TRACE_PROPERTIES,
    count: u32,
    found: &mut u32,
) -> Result<(), Code> {
    if array.is_null() || count == 0 || count as usize > SESSIONS_MAX {
        return Err(Code(ERROR_INVALID_PARAMETER));
    }
    let machine = setting::machine()?;
    let mut sessions = machine.sessions()?;
    let others = setting::scenario(&machine)?.other_sessions;
    sessions.extend((0..others).map(|n| Session {
        name: format!("Other-{n}"),
        logger_id: OTHER_LOGGER_ID + n as u16,
        buffer_size_kb: 64,
        ..Session::default()
    }));
    *found = sessions.len() as u32;
    for (n, session) in sessions.iter().enumerate().take(count as usize) {
        // SAFETY: `n` is less than `count`, and the caller guarantees the rest.
        let mut properties = unsafe { Properties::new(array.add(n).read_unaligned())? };
        properties.fill(session);
    }
    if sessions.len() > count as usize { Err(Code(ERROR_MORE_DATA)) } else { Ok(()) }
}

/// Implements `EnumerateTraceGuidsEx`. Returns the bytes of the answer.
pub(crate) fn guids(class: TRACE_QUERY_INFO_CLASS, guid: Option<Uuid>) -> Result<Vec<u8>, Code> {
    let machine = setting::machine()?;
    let sessions = machine.sessions()?;
    let mut known: Vec<Uuid> = REGISTERED.to_vec();
    let enabled = sessions.iter().flat_map(|session| &session.providers);
    known.extend(enabled.filter_map(|provider| Uuid::parse_str(&provider.guid).ok()));
    known.sort();
    known.dedup();
    if class == TraceGuidQueryList {
        return Ok(known.iter().flat_map(Uuid::to_bytes_le).collect());
    }
    if class != TraceGuidQueryInfo {
        return Err(Code(ERROR_NOT_SUPPORTED));
    }
    let guid = guid.ok_or(Code(ERROR_INVALID_PARAMETER))?;
    if !known.contains(&guid) {
        return Err(Code(ERROR_WMI_GUID_NOT_FOUND));
    }
    Ok(info(&sessions, &guid.to_string()))
}

/// Returns a `TRACE_GUID_INFO`, one `TRACE_PROVIDER_INSTANCE_INFO`, and a `TRACE_ENABLE_INFO` for each session.
fn info(sessions: &[Session], guid: &str) -> Vec<u8> {
    let enabled: Vec<_> =
        sessions.iter().filter_map(|session| Some((session.logger_id, session.provider(guid)?))).collect();
    let mut bytes = Vec::new();
    let mut put = |field: &[u8]| bytes.extend_from_slice(field);
    put(&1_u32.to_le_bytes());
    put(&0_u32.to_le_bytes());
    for field in [0, enabled.len() as u32, PROVIDER_PROCESS, 0] {
        put(&field.to_le_bytes());
    }
    for (logger_id, provider) in enabled {
        put(&1_u32.to_le_bytes());
        put(&[provider.level, 0]);
        put(&logger_id.to_le_bytes());
        put(&provider.property.to_le_bytes());
        put(&0_u32.to_le_bytes());
        put(&provider.any_keyword.to_le_bytes());
        put(&provider.all_keyword.to_le_bytes());
    }
    bytes
}

/// Implements `TraceQueryInformation`. Returns the bytes of the answer.
pub(crate) fn information(class: TRACE_QUERY_INFO_CLASS) -> Result<[u8; 4], Code> {
    if class == TraceMaxLoggersQuery {
        Ok((SESSIONS_MAX as u32).to_le_bytes())
    } else {
        Err(Code(ERROR_NOT_SUPPORTED))
    }
}

/// Copies an answer to the buffer of the caller.
///
/// # Errors
///
/// 122 if the buffer is too small, 24 if an answer of fixed size does not have the size of the buffer.
///
/// # Safety
///
/// `out` is null or addresses `room` bytes, `needed` is null or a `u32`.
pub(crate) unsafe fn answer(
    bytes: &[u8],
    out: *mut u8,
    room: u32,
    needed: *mut u32,
    is_fixed: bool,
) -> Result<(), Code> {
    if !needed.is_null() {
        // SAFETY: promised by the caller.
        unsafe { needed.write_unaligned(bytes.len() as u32) };
    }
    if is_fixed && (out.is_null() || room as usize != bytes.len()) {
        return Err(Code(ERROR_BAD_LENGTH));
    }
    if out.is_null() || (room as usize) < bytes.len() {
        return Err(Code(ERROR_INSUFFICIENT_BUFFER));
    }
    // SAFETY: the size of the buffer has just been checked.
    unsafe { out.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

/// Returns the GUID in the query of a caller.
///
/// # Safety
///
/// `input` is null or addresses `len` bytes.
pub(crate) unsafe fn input(input: *const GUID, len: u32) -> Option<Uuid> {
    if input.is_null() || (len as usize) < size_of::<GUID>() {
        return None;
    }
    // SAFETY: the length has been checked, and every bit pattern is a valid GUID.
    Some(wide::uuid(&unsafe { input.read_unaligned() }))
}
