//! What the account of this process may do: is it elevated, may it start event tracing sessions.
#![expect(unsafe_code, reason = "token queries take pointers")]

use std::fmt;
use std::io;
use std::mem::size_of;
use std::ptr::null_mut;
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE};
use windows_sys::Win32::Security::{
    CheckTokenMembership, GetTokenInformation, TOKEN_ELEVATION, TOKEN_QUERY, TokenElevation,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// Why the process may start event tracing sessions, or that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It runs as LocalSystem (S-1-5-18).
    LocalSystem,
    /// It runs as LocalService (S-1-5-19).
    LocalService,
    /// It runs as NetworkService (S-1-5-20).
    NetworkService,
    /// It is an elevated administrator (S-1-5-32-544).
    Administrators,
    /// It is a member of Performance Log Users (S-1-5-32-559).
    PerformanceLogUsers,
    /// None of these: `StartTrace` will answer access denied.
    Denied,
}

impl Access {
    /// Whether sessions may be started.
    pub fn is_granted(self) -> bool {
        self != Self::Denied
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalSystem => "runs as LocalSystem",
            Self::LocalService => "runs as LocalService",
            Self::NetworkService => "runs as NetworkService",
            Self::Administrators => "runs as an elevated administrator",
            Self::PerformanceLogUsers => "is a member of Performance Log Users",
            Self::Denied => "is neither an elevated administrator nor a member of Performance Log Users",
        })
    }
}

/// A SID of one or two parts below NT authority (S-1-5-…).
///
/// | offset | field |
/// |---|---|
/// | 0 | u8 revision, 1 |
/// | 1 | u8 number of parts |
/// | 2 | u48 big-endian authority, 5 |
/// | 8 | u32 little-endian parts |
#[repr(C, align(4))]
struct Sid([u8; 16]);

impl Sid {
    const fn new(parts: &[u32]) -> Self {
        let mut bytes = [1, parts.len() as u8, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut at = 0;
        // 16 bytes have room for two parts; a third is a compile error where this is used.
        while at < parts.len() {
            let part = parts[at].to_le_bytes();
            let start = 8 + 4 * at;
            bytes[start] = part[0];
            bytes[start + 1] = part[1];
            bytes[start + 2] = part[2];
            bytes[start + 3] = part[3];
            at += 1;
        }
        Self(bytes)
    }
}

/// Who may start sessions, the most telling first.
static MAY_START: [(Sid, Access); 5] = [
    (Sid::new(&[18]), Access::LocalSystem),
    (Sid::new(&[19]), Access::LocalService),
    (Sid::new(&[20]), Access::NetworkService),
    (Sid::new(&[32, 544]), Access::Administrators),
    (Sid::new(&[32, 559]), Access::PerformanceLogUsers),
];

/// Whether the process has an elevated token.
///
/// # Errors
///
/// What the system says.
pub fn is_elevated() -> io::Result<bool> {
    let mut token: HANDLE = null_mut();
    // SAFETY: the process handle is a constant that need not be closed; `token` may be written.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut elevation = TOKEN_ELEVATION::default();
    let mut len = 0;
    // SAFETY: `elevation` is what this class of information fills, and its size is passed.
    let answered = unsafe {
        let (out, size) = ((&raw mut elevation).cast(), size_of::<TOKEN_ELEVATION>() as u32);
        GetTokenInformation(token, TokenElevation, out, size, &raw mut len)
    };
    let result =
        if answered == 0 { Err(io::Error::last_os_error()) } else { Ok(elevation.TokenIsElevated != 0) };
    // SAFETY: `OpenProcessToken` gave the handle, and it is closed once.
    unsafe { CloseHandle(token) };
    result
}

/// Whether, and why, the process may start event tracing sessions. A group that User Account Control took from the
/// token does not count.
///
/// # Errors
///
/// What the system says.
pub fn may_start_sessions() -> io::Result<Access> {
    for (sid, access) in &MAY_START {
        let mut member = 0;
        // SAFETY: no token means that of the caller; `Sid` is laid out and aligned as a SID and is only read.
        let answered = unsafe {
            let sid = sid.0.as_ptr().cast_mut().cast();
            CheckTokenMembership(null_mut(), sid, &raw mut member)
        };
        if answered == 0 {
            return Err(io::Error::last_os_error());
        }
        if member != 0 {
            return Ok(*access);
        }
    }
    Ok(Access::Denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sids_have_the_bytes_of_the_format() {
        assert_eq!(Sid::new(&[18]).0, [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Sid::new(&[32, 559]).0, [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x2f, 2, 0, 0]);
    }

    #[test]
    fn an_elevated_administrator_may_start_sessions() {
        // On Windows a plain user is not elevated and may be denied; both questions must be answered all the same.
        let (elevated, access) = (is_elevated().unwrap(), may_start_sessions().unwrap());
        assert!(!elevated || access.is_granted(), "elevated, and yet it {access}");
    }
}
