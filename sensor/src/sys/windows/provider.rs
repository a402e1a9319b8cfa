//! Queries about a provider (registration, processes, sessions that have it enabled), and the number of sessions.
//!
//! [`parse_guid_info`] reads the answer of `EnumerateTraceGuidsEx` and checks every offset and count in it.
#![expect(unsafe_code, reason = "the ETW queries take pointers")]

use crate::live::provider::{ProviderState, Registration, SessionCount, expand_variables, parse_guid_info};
use etwsieve_host::registry::{self, Hive, Value};
use std::io;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{
    ERROR_INSUFFICIENT_BUFFER, ERROR_MORE_DATA, ERROR_SUCCESS, ERROR_WMI_GUID_NOT_FOUND,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    EVENT_TRACE_PROPERTIES, EnumerateTraceGuidsEx, QueryAllTracesW, TraceGuidQueryInfo,
};
use windows_sys::core::GUID;

/// Key of the registered manifests, below `HKLM`.
const PUBLISHERS: &str = r"SOFTWARE\Microsoft\Windows\CurrentVersion\WINEVT\Publishers";
/// Key of the configured number of sessions, below `HKLM`.
const WMI: &str = r"SYSTEM\CurrentControlSet\Control\WMI";
/// Default number of sessions that a machine allows.
const SESSIONS_MAX_DEFAULT: u32 = 64;
/// Number of sessions for which `QueryAllTracesW` gets room; it counts the others too.
const SESSIONS_LISTED_MAX: usize = 64;
/// Initial and maximum size of the answer to a query, in bytes: enough for ten thousand processes with eight sessions
/// each.
const ANSWER_LEN_FIRST: usize = 16 << 10;
const ANSWER_LEN_MAX: usize = 4 << 20;

/// Looks up a provider among the registered manifests; `None` if it is not registered.
///
/// # Errors
///
/// The error of the registry, such as access denied.
pub(super) fn registration(provider: &Uuid) -> io::Result<Option<Registration>> {
    let path = format!(r"{PUBLISHERS}\{{{}}}", provider.hyphenated());
    let Some(mut values) = registry::values(Hive::LocalMachine, &path)? else {
        return Ok(None);
    };
    let mut text = |name: &str| match values.remove(name) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let name = text("").unwrap_or_default();
    let resource_file = text("resourcefilename").map(|file| {
        let file = PathBuf::from(expand_variables(&file, |name| std::env::var(name).ok()));
        // Windows searches for a bare name in its system folder.
        if file.is_absolute() { file } else { system_folder().join(file) }
    });
    let resource_exists = resource_file.as_deref().is_some_and(Path::exists);
    Ok(Some(Registration { name, resource_file, resource_exists }))
}

fn system_folder() -> PathBuf {
    let root = std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from);
    root.join("System32")
}

/// Returns the processes in which a provider is registered and the sessions that have it enabled. Both are empty for a
/// provider that is neither registered nor enabled.
///
/// # Errors
///
/// The error of the system: only accounts that may start sessions get an answer. [`io::ErrorKind::InvalidData`] for an
/// answer that is larger than 4 MB or contradicts itself.
pub(super) fn enabled_sessions(provider: &Uuid) -> io::Result<ProviderState> {
    let (data1, data2, data3, data4) = provider.as_fields();
    let guid = GUID { data1, data2, data3, data4: *data4 };
    let mut answer = vec![0_u8; ANSWER_LEN_FIRST];
    loop {
        let mut len = 0_u32;
        // SAFETY: both buffers live until the call returns, and their sizes are passed.
        let code = unsafe {
            let (guid, guid_len) = ((&raw const guid).cast(), size_of::<GUID>() as u32);
            let (out, out_len) = (answer.as_mut_ptr().cast(), answer.len() as u32);
            EnumerateTraceGuidsEx(TraceGuidQueryInfo, guid, guid_len, out, out_len, &raw mut len)
        };
        let len = len as usize;
        match code {
            ERROR_SUCCESS => {
                let filled =
                    answer.get(..len).ok_or_else(|| invalid("the answer is longer than its buffer"))?;
                return parse_guid_info(filled).map_err(invalid);
            }
            ERROR_WMI_GUID_NOT_FOUND => return Ok(ProviderState::default()),
            ERROR_INSUFFICIENT_BUFFER => {
                // Processes start between two calls, so allocate more than was missing.
                let new_len = len.max(answer.len()).saturating_mul(2);
                if answer.len() >= ANSWER_LEN_MAX {
                    return Err(invalid("the answer is larger than 4 MB"));
                }
                answer.resize(new_len.min(ANSWER_LEN_MAX), 0);
            }
            code => return Err(io::Error::from_raw_os_error(code.cast_signed())),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Maximum length of a session or file name with its NUL, in UTF-16 units.
const NAME_UNITS_MAX: usize = 1024;

/// `EVENT_TRACE_PROPERTIES` followed by room for both names.
#[repr(C)]
struct Properties {
    head: EVENT_TRACE_PROPERTIES,
    session: [u16; NAME_UNITS_MAX],
    file: [u16; NAME_UNITS_MAX],
}

/// Counts the sessions, and reads how many the machine allows (`EtwMaxLoggers`, by default 64).
///
/// # Errors
///
/// The error of the system.
pub(super) fn session_count() -> io::Result<SessionCount> {
    let configured = registry::value(Hive::LocalMachine, WMI, "EtwMaxLoggers")?;
    let max = match configured {
        Some(Value::Dword(max)) if max > 0 => max,
        _ => SESSIONS_MAX_DEFAULT,
    };
    let mut blocks: Vec<Properties> = (0..SESSIONS_LISTED_MAX)
        .map(|_| {
            let mut head = EVENT_TRACE_PROPERTIES::default();
            head.Wnode.BufferSize = size_of::<Properties>() as u32;
            head.LoggerNameOffset = offset_of!(Properties, session) as u32;
            head.LogFileNameOffset = offset_of!(Properties, file) as u32;
            Properties { head, session: [0; NAME_UNITS_MAX], file: [0; NAME_UNITS_MAX] }
        })
        .collect();
    // Each pointer is derived from the whole block, so that it may be used to write the names after the structure.
    let mut pointers: Vec<*mut EVENT_TRACE_PROPERTIES> =
        blocks.iter_mut().map(|block| (&raw mut *block).cast()).collect();
    let mut used = 0;
    // SAFETY: the count is that of the pointers. Each points to a block that states its whole size and contains its
    // offsets.
    let code = unsafe { QueryAllTracesW(pointers.as_mut_ptr(), SESSIONS_LISTED_MAX as u32, &raw mut used) };
    match code {
        ERROR_SUCCESS | ERROR_MORE_DATA => Ok(SessionCount { used, max }),
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_found() {
        let id = Uuid::from_u128(0x6574_7773_6965_7665_0000_0000_0000_0000 | u128::from(std::process::id()));
        let path = format!(r"{PUBLISHERS}\{{{id}}}");
        assert_eq!(registration(&id).unwrap(), None);
        if let Err(error) = registry::set_expanding(Hive::LocalMachine, &path, "", "Test-Provider") {
            println!("skipped: {error}");
            return;
        }
        let file = r"%SystemRoot%\System32\kernel32.dll";
        registry::set_expanding(Hive::LocalMachine, &path, "ResourceFileName", file).unwrap();
        let found = registration(&id).unwrap().unwrap();
        registry::set_expanding(Hive::LocalMachine, &path, "ResourceFileName", "no-such.dll").unwrap();
        let gone = registration(&id).unwrap().unwrap();
        registry::delete(Hive::LocalMachine, &path).unwrap();
        assert_eq!(found.name, "Test-Provider");
        assert!(found.resource_exists, "{found:?}");
        assert!(!gone.resource_exists && gone.resource_file.unwrap().is_absolute());
    }
}
