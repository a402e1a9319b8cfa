//! The registry: reading the values of a key, and the few writes that registering an event source needs.
//!
//! A missing key is `None`, so that errors are real failures. Number and size of the values read are limited, because
//! any user can write to the hive of the current user.
#![expect(unsafe_code, reason = "the registry functions take pointers")]

use crate::wide::{text, wide};
use std::collections::BTreeMap;
use std::io;
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::{
    ERROR_FILE_NOT_FOUND, ERROR_MORE_DATA, ERROR_NO_MORE_ITEMS, ERROR_PATH_NOT_FOUND, ERROR_SUCCESS,
};
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_CURRENT_USER, HKEY_LOCAL_MACHINE, KEY_READ, KEY_WOW64_64KEY, REG_DWORD, REG_EXPAND_SZ,
    REG_MULTI_SZ, REG_SZ, RegCloseKey, RegDeleteTreeW, RegEnumValueW, RegOpenKeyExW, RegSetKeyValueW,
};

/// Maximum number of values read from a key.
const VALUES_MAX: u32 = 1024;
/// Maximum length of a value name with its NUL, in UTF-16 units; the limit of the registry.
const NAME_UNITS_MAX: usize = 16_384;
/// Maximum size of a value, in bytes; a larger one is returned as [`Value::Other`].
const VALUE_LEN_MAX: u32 = 64 << 10;

/// A hive of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hive {
    /// `HKEY_LOCAL_MACHINE`
    LocalMachine,
    /// `HKEY_CURRENT_USER`, the hive of the account that runs this process.
    CurrentUser,
}

impl Hive {
    fn handle(self) -> HKEY {
        match self {
            Self::LocalMachine => HKEY_LOCAL_MACHINE,
            Self::CurrentUser => HKEY_CURRENT_USER,
        }
    }

    /// Returns the abbreviation, such as `HKLM`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalMachine => "HKLM",
            Self::CurrentUser => "HKCU",
        }
    }
}

/// A registry value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `REG_DWORD`
    Dword(u32),
    /// `REG_SZ` and `REG_EXPAND_SZ`, not expanded.
    Text(String),
    /// `REG_MULTI_SZ`
    Texts(Vec<String>),
    /// Another type, or too large to be read.
    Other {
        /// Number of the type.
        kind: u32,
    },
}

/// The values of a key by lower-case name, because the registry ignores the case of names. The default value has the
/// name "".
pub type Values = BTreeMap<String, Value>;

/// An open key; closed on drop.
struct Key(HKEY);

impl Key {
    /// Opens a key. Returns `None` if it does not exist.
    fn open(hive: Hive, path: &str) -> io::Result<Option<Self>> {
        let path = wide(path);
        let mut key: HKEY = null_mut();
        // SAFETY: `path` is NUL-terminated and `key` is writable; the hive is a predefined handle.
        let code = unsafe {
            RegOpenKeyExW(hive.handle(), path.as_ptr(), 0, KEY_READ | KEY_WOW64_64KEY, &raw mut key)
        };
        match code {
            ERROR_SUCCESS => Ok(Some(Self(key))),
            ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND => Ok(None),
            code => Err(error(code)),
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: `RegOpenKeyExW` returned the handle, and it is closed once.
        unsafe { RegCloseKey(self.0) };
    }
}

fn error(code: u32) -> io::Error {
    io::Error::from_raw_os_error(code.cast_signed())
}

/// Returns the values of a key in the 64-bit view, at most 1,024, or `None` if the key does not exist.
///
/// # Errors
///
/// Errors of the system, such as access denied.
pub fn values(hive: Hive, path: &str) -> io::Result<Option<Values>> {
    let Some(key) = Key::open(hive, path)? else {
        return Ok(None);
    };
    let mut found = Values::new();
    let mut name = vec![0_u16; NAME_UNITS_MAX];
    let mut data = vec![0_u8; VALUE_LEN_MAX as usize];
    for index in 0..VALUES_MAX {
        let (mut units, mut len, mut kind) = (NAME_UNITS_MAX as u32, VALUE_LEN_MAX, 0);
        // SAFETY: both buffers have the sizes that are passed; the reserved pointer must be null.
        let code = unsafe {
            let (name, data) = (name.as_mut_ptr(), data.as_mut_ptr());
            RegEnumValueW(key.0, index, name, &raw mut units, null(), &raw mut kind, data, &raw mut len)
        };
        let value = match code {
            ERROR_SUCCESS => decode(kind, data.get(..len as usize).unwrap_or_default()),
            ERROR_NO_MORE_ITEMS => break,
            ERROR_MORE_DATA => {
                // The value is too large and the buffers are undefined: query again for the name alone.
                units = NAME_UNITS_MAX as u32;
                // SAFETY: as above; no data buffer is passed.
                let code = unsafe {
                    let name = name.as_mut_ptr();
                    RegEnumValueW(
                        key.0,
                        index,
                        name,
                        &raw mut units,
                        null(),
                        &raw mut kind,
                        null_mut(),
                        null_mut(),
                    )
                };
                match code {
                    ERROR_SUCCESS => Value::Other { kind },
                    code => return Err(error(code)),
                }
            }
            code => return Err(error(code)),
        };
        let name = String::from_utf16_lossy(name.get(..units as usize).unwrap_or_default());
        found.insert(name.to_lowercase(), value);
    }
    Ok(Some(found))
}

/// Returns a value, or `None` if the key or the value does not exist.
///
/// # Errors
///
/// The same as for [`values`].
pub fn value(hive: Hive, path: &str, name: &str) -> io::Result<Option<Value>> {
    Ok(values(hive, path)?.and_then(|mut all| all.remove(&name.to_lowercase())))
}

/// Decodes the data of a value. A text may lack its NUL, because the registry does not enforce it.
fn decode(kind: u32, data: &[u8]) -> Value {
    let units =
        || -> Vec<u16> { data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect() };
    match (kind, data) {
        (REG_DWORD, &[a, b, c, d]) => Value::Dword(u32::from_le_bytes([a, b, c, d])),
        (REG_SZ | REG_EXPAND_SZ, _) => Value::Text(text(&units())),
        (REG_MULTI_SZ, _) => {
            let units = units();
            Value::Texts(units.split(|unit| *unit == 0).filter(|part| !part.is_empty()).map(text).collect())
        }
        _ => Value::Other { kind },
    }
}

/// Writes a `REG_DWORD` and creates the key if necessary.
///
/// # Errors
///
/// Errors of the system, such as access denied.
pub fn set_dword(hive: Hive, path: &str, name: &str, value: u32) -> io::Result<()> {
    set(hive, path, name, REG_DWORD, &value.to_le_bytes())
}

/// Writes a `REG_EXPAND_SZ`. Its readers expand variables such as `%SystemRoot%`.
///
/// # Errors
///
/// The same as for [`set_dword`].
pub fn set_expanding(hive: Hive, path: &str, name: &str, value: &str) -> io::Result<()> {
    let bytes: Vec<u8> = wide(value).into_iter().flat_map(u16::to_le_bytes).collect();
    set(hive, path, name, REG_EXPAND_SZ, &bytes)
}

fn set(hive: Hive, path: &str, name: &str, kind: u32, data: &[u8]) -> io::Result<()> {
    let (path, name) = (wide(path), wide(name));
    // SAFETY: both texts are NUL-terminated, and the length is that of `data`. The function keeps no pointer.
    let code = unsafe {
        let data_start = data.as_ptr().cast();
        RegSetKeyValueW(hive.handle(), path.as_ptr(), name.as_ptr(), kind, data_start, data.len() as u32)
    };
    if code == ERROR_SUCCESS { Ok(()) } else { Err(error(code)) }
}

/// Deletes a key and its subkeys. Returns true if it existed.
///
/// # Errors
///
/// Errors of the system, and `InvalidInput` for an empty path, which would mean the hive itself.
pub fn delete(hive: Hive, path: &str) -> io::Result<bool> {
    if path.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an empty registry path would delete the whole hive",
        ));
    }
    let path = wide(path);
    // SAFETY: `path` is NUL-terminated and refers to a key below a predefined handle.
    match unsafe { RegDeleteTreeW(hive.handle(), path.as_ptr()) } {
        ERROR_SUCCESS => Ok(true),
        ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND => Ok(false),
        code => Err(error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_read_and_deleted() {
        let path = format!(r"Software\etwsieve-test-{}", std::process::id());
        let hive = Hive::CurrentUser;
        assert_eq!(values(hive, &path).unwrap(), None);
        set_dword(hive, &path, "Number", 7).unwrap();
        set_expanding(hive, &path, "Text", "%A% \u{e4}").unwrap();
        let huge = vec![0; VALUE_LEN_MAX as usize + 2];
        set(hive, &path, "Huge", REG_SZ, &huge).unwrap();
        let all = values(hive, &path).unwrap().unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all["number"], Value::Dword(7));
        assert_eq!(all["text"], Value::Text("%A% \u{e4}".into()));
        assert_eq!(all["huge"], Value::Other { kind: REG_SZ });
        assert_eq!(value(hive, &path, "NUMBER").unwrap(), Some(Value::Dword(7)));
        assert!(delete(hive, &path).unwrap());
        assert!(!delete(hive, &path).unwrap());
        assert!(delete(hive, "").is_err());
    }

    #[test]
    fn malformed_data_is_decoded_without_panics() {
        let rows: [(&str, u32, &[u8], Value); 6] = [
            ("dword", REG_DWORD, &[1, 0, 0, 0], Value::Dword(1)),
            ("short dword", REG_DWORD, &[1, 0], Value::Other { kind: REG_DWORD }),
            ("text without NUL", REG_SZ, &[b'1', 0], Value::Text("1".into())),
            ("odd length", REG_SZ, &[b'1', 0, b'2'], Value::Text("1".into())),
            ("lone surrogate", REG_SZ, &[0, 0xd8], Value::Text("\u{fffd}".into())),
            (
                "several",
                REG_MULTI_SZ,
                &[b'a', 0, 0, 0, b'b', 0, 0, 0, 0, 0],
                Value::Texts(vec!["a".into(), "b".into()]),
            ),
        ];
        for (name, kind, data, expected) in rows {
            assert_eq!(decode(kind, data), expected, "{name}");
        }
    }
}
