//! A provider of events as the machine knows it: is its manifest registered, in which processes does it run, which
//! sessions have it enabled and how. And how many sessions there are.
//!
//! What `EnumerateTraceGuidsEx` answers is read by [`parse_guid_info`], which checks every offset and count.
#![expect(unsafe_code, reason = "the ETW queries take pointers")]

mod guid_info;

use etwsieve_host::registry::{self, Hive, Value};
pub use guid_info::{EnabledSession, GuidInfoError, ProviderState, parse_guid_info};
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

/// Where manifests are registered, below `HKLM`.
const PUBLISHERS: &str = r"SOFTWARE\Microsoft\Windows\CurrentVersion\WINEVT\Publishers";
/// Where the number of sessions is configured, below `HKLM`.
const WMI: &str = r"SYSTEM\CurrentControlSet\Control\WMI";
/// Sessions that a machine allows unless configured otherwise.
const SESSIONS_MAX_DEFAULT: u32 = 64;
/// Sessions that `QueryAllTracesW` is given room for; it counts the others too.
const SESSIONS_LISTED_MAX: usize = 64;
/// First and largest size of the answer to a query, in bytes: ten thousand processes with eight sessions each fit.
const ANSWER_LEN_FIRST: usize = 16 << 10;
const ANSWER_LEN_MAX: usize = 4 << 20;

/// A manifest in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The provider's name, empty if the manifest has none.
    pub name: String,
    /// The file with its templates and messages, variables expanded.
    pub resource_file: Option<PathBuf>,
    /// Whether that file exists. Without it others cannot decode the provider's events; this sensor can.
    pub resource_exists: bool,
}

/// Looks a provider up among the registered manifests; `None` if it is not there.
///
/// # Errors
///
/// What the registry says, such as access denied.
pub fn registration(provider: &Uuid) -> io::Result<Option<Registration>> {
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
        let file = PathBuf::from(expand(&file, |name| std::env::var(name).ok()));
        // A bare name is searched for where Windows keeps its libraries.
        if file.is_absolute() { file } else { system_folder().join(file) }
    });
    let resource_exists = resource_file.as_deref().is_some_and(Path::exists);
    Ok(Some(Registration { name, resource_file, resource_exists }))
}

fn system_folder() -> PathBuf {
    let root = std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from);
    root.join("System32")
}

/// Replaces each `%NAME%` that `variable` knows.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(before);
        let known = behind.split_once('%').and_then(|(name, after)| Some((variable(name)?, after)));
        if let Some((value, after)) = known {
            out.push_str(&value);
            rest = after;
        } else {
            out.push('%');
            rest = behind;
        }
    }
    out + rest
}

/// Asks in which processes a provider is registered and which sessions have it enabled. A provider that nobody
/// registered or enabled has none of either.
///
/// # Errors
///
/// What the system says (only members of the groups that may start sessions are answered), and
/// [`io::ErrorKind::InvalidData`] for an answer that is larger than 4 MB or contradicts itself.
pub fn enabled_sessions(provider: &Uuid) -> io::Result<ProviderState> {
    let (data1, data2, data3, data4) = provider.as_fields();
    let guid = GUID { data1, data2, data3, data4: *data4 };
    let mut answer = vec![0_u8; ANSWER_LEN_FIRST];
    loop {
        let mut len = 0_u32;
        // SAFETY: both buffers live until the call returns, and their true sizes are passed.
        let code = unsafe {
            let (guid, guid_len) = ((&raw const guid).cast(), size_of::<GUID>() as u32);
            let (out, out_len) = (answer.as_mut_ptr().cast(), answer.len() as u32);
            EnumerateTraceGuidsEx(TraceGuidQueryInfo, guid, guid_len, out, out_len, &raw mut len)
        };
        let len = len as usize;
        match code {
            ERROR_SUCCESS => {
                let told = answer.get(..len).ok_or_else(|| invalid("an answer longer than its buffer"))?;
                return parse_guid_info(told).map_err(invalid);
            }
            ERROR_WMI_GUID_NOT_FOUND => return Ok(ProviderState::default()),
            ERROR_INSUFFICIENT_BUFFER => {
                // Processes come and go between two calls, so ask for more than was missing.
                let wanted = len.max(answer.len()).saturating_mul(2);
                if answer.len() >= ANSWER_LEN_MAX {
                    return Err(invalid("an answer of more than 4 MB"));
                }
                answer.resize(wanted.min(ANSWER_LEN_MAX), 0);
            }
            code => return Err(io::Error::from_raw_os_error(code.cast_signed())),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sessions on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCount {
    /// Sessions that run, as far as this account may see them.
    pub used: u32,
    /// Sessions that the machine allows.
    pub max: u32,
}

/// Longest session or file name with its NUL, in UTF-16 units.
const NAME_UNITS_MAX: usize = 1024;

/// `EVENT_TRACE_PROPERTIES` with room for both names.
#[repr(C)]
struct Properties {
    head: EVENT_TRACE_PROPERTIES,
    session: [u16; NAME_UNITS_MAX],
    file: [u16; NAME_UNITS_MAX],
}

/// Counts the sessions, and reads how many there may be (`EtwMaxLoggers`, 64 if that is absent).
///
/// # Errors
///
/// What the system says.
pub fn session_count() -> io::Result<SessionCount> {
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
    // The pointers must be allowed to reach the names behind the structure, hence the cast of the whole.
    let mut pointers: Vec<*mut EVENT_TRACE_PROPERTIES> =
        blocks.iter_mut().map(|block| (&raw mut *block).cast()).collect();
    let mut used = 0;
    // SAFETY: as many pointers as are told, each to a block that says its whole size and whose offsets lie in it.
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
    fn variables_expand_and_lone_signs_stay() {
        let variable = |name: &str| (name == "R").then(|| r"C:\W".to_owned());
        for (text, expected) in
            [(r"%R%\a.dll", r"C:\W\a.dll"), ("100%", "100%"), ("%X%R%", r"%XC:\W"), ("", ""), ("%%", "%%")]
        {
            assert_eq!(expand(text, variable), expected, "{text}");
        }
    }

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
