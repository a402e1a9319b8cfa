//! The rights of the account that this process runs as.
#![expect(unsafe_code, reason = "token queries take pointers")]

use crate::live::doctor::Access;
use std::io;
use std::ptr::null_mut;
use windows_sys::Win32::Security::CheckTokenMembership;

/// A SID of one or two sub-authorities below NT authority (S-1-5-…), in a constant that Windows can read.
///
/// | offset | field |
/// |---|---|
/// | 0 | u8 revision, 1 |
/// | 1 | u8 number of sub-authorities |
/// | 2 | u48 big-endian authority, 5 |
/// | 8 | u32 little-endian sub-authorities |
#[repr(C, align(4))]
struct Sid([u8; 16]);

impl Sid {
    const fn new(parts: &[u32]) -> Self {
        let mut bytes = [1, parts.len() as u8, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut at = 0;
        // 16 bytes have room for two; a third is a compile error in the constant.
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

/// The accounts and groups that may start sessions, the most specific first.
static MAY_START: [(Sid, Access); 5] = [
    (Sid::new(&[18]), Access::LocalSystem),
    (Sid::new(&[19]), Access::LocalService),
    (Sid::new(&[20]), Access::NetworkService),
    (Sid::new(&[32, 544]), Access::Administrators),
    (Sid::new(&[32, 559]), Access::PerformanceLogUsers),
];

/// Returns why the process may start event tracing sessions, or [`Access::Denied`]. Groups that User Account Control
/// removed from the token do not count.
///
/// # Errors
///
/// The error of the system.
pub(super) fn may_start_sessions() -> io::Result<Access> {
    for (sid, access) in &MAY_START {
        let mut member = 0;
        // SAFETY: a null token means the token of the caller. `Sid` has the layout and alignment of a SID and is only
        // read.
        let succeeded = unsafe {
            let sid = sid.0.as_ptr().cast_mut().cast();
            CheckTokenMembership(null_mut(), sid, &raw mut member)
        };
        if succeeded == 0 {
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
    use windows_sys::Win32::Foundation::{CloseHandle, HANDLE};
    use windows_sys::Win32::Security::{GetTokenInformation, TOKEN_ELEVATION, TOKEN_QUERY, TokenElevation};
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

    /// Returns whether the process has an elevated token.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn is_elevated() -> io::Result<bool> {
        let mut token: HANDLE = null_mut();
        // SAFETY: the process handle is a constant that need not be closed, and `token` is writable.
        if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
            return Err(io::Error::last_os_error());
        }
        let mut elevation = TOKEN_ELEVATION::default();
        let mut len = 0;
        // SAFETY: this class of information fills a `TOKEN_ELEVATION`, whose size is passed.
        let succeeded = unsafe {
            let (out, size) = ((&raw mut elevation).cast(), size_of::<TOKEN_ELEVATION>() as u32);
            GetTokenInformation(token, TokenElevation, out, size, &raw mut len)
        };
        let result =
            if succeeded == 0 { Err(io::Error::last_os_error()) } else { Ok(elevation.TokenIsElevated != 0) };
        // SAFETY: `OpenProcessToken` returned the handle, and it is closed once.
        unsafe { CloseHandle(token) };
        result
    }

    #[test]
    fn sids_have_the_documented_layout() {
        assert_eq!(Sid::new(&[18]).0, [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Sid::new(&[32, 559]).0, [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x2f, 2, 0, 0]);
    }

    #[test]
    fn an_elevated_administrator_may_start_sessions() {
        // A user who is not elevated may be denied, but both queries must succeed.
        let (elevated, access) = (is_elevated().unwrap(), may_start_sessions().unwrap());
        assert!(!elevated || access.is_granted(), "elevated, but it {access}");
    }
}
