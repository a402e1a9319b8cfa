//! Finds out who besides administrators can change a file that a service runs or reads.
//!
//! The access control lists of the file, its folder and all parent folders are checked. Deny entries are ignored, so
//! the result errs on the side of caution.
#![expect(unsafe_code, reason = "security descriptors come as pointers")]

use std::fmt;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use windows_sys::Win32::Foundation::{ERROR_SUCCESS, LocalFree};
use windows_sys::Win32::Security::Authorization::{GetNamedSecurityInfoW, SE_FILE_OBJECT};
use windows_sys::Win32::Security::{ACL, DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR};

/// `GENERIC_ALL`, `WRITE_OWNER`, `WRITE_DAC`, `DELETE`: each of these rights suffices to replace a file.
const REPLACE: u32 = 0x1000_0000 | 0x8_0000 | 0x4_0000 | 0x1_0000;
/// Rights to write or append to a file: `GENERIC_WRITE`, `FILE_WRITE_DATA`, `FILE_APPEND_DATA`.
const CHANGE_FILE: u32 = REPLACE | 0x4000_0000 | 0x2 | 0x4;
/// Rights to add a file to a folder (a library that is found first) or to remove one: `GENERIC_WRITE`, `FILE_ADD_FILE`,
/// `FILE_DELETE_CHILD`.
const CHANGE_FOLDER: u32 = REPLACE | 0x4000_0000 | 0x2 | 0x40;
/// The right to replace a subfolder: `FILE_DELETE_CHILD`. Adding files and folders beside it is harmless.
const CHANGE_ANCESTOR: u32 = REPLACE | 0x40;

/// Groups that ordinary accounts belong to, as SIDs.
const ORDINARY: [(&[u8], &str); 6] = [
    (&[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "Everyone"),
    (&[1, 1, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0], "INTERACTIVE"),
    (&[1, 1, 0, 0, 0, 0, 0, 5, 7, 0, 0, 0], "ANONYMOUS LOGON"),
    (&[1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0], "Authenticated Users"),
    (&[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0], "Users"),
    (&[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x22, 2, 0, 0], "Guests"),
];

/// A file or folder that a group of ordinary accounts can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The file or folder.
    pub path: PathBuf,
    /// The group.
    pub group: &'static str,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can be changed by the group {}", self.path.display(), self.group)
    }
}

/// Finds out who else can change `file`, directly or through a parent folder.
///
/// # Errors
///
/// Errors of the system, and `InvalidData` for an inconsistent access control list.
pub fn exposures(file: &Path) -> io::Result<Vec<Exposure>> {
    let mut found = Vec::new();
    for (depth, path) in file.ancestors().filter(|path| !path.as_os_str().is_empty()).enumerate() {
        let rights = match depth {
            0 => CHANGE_FILE,
            1 => CHANGE_FOLDER,
            _ => CHANGE_ANCESTOR,
        };
        let groups = groups(path, rights)?;
        found.extend(groups.into_iter().map(|group| Exposure { path: path.to_path_buf(), group }));
    }
    Ok(found)
}

/// Frees a security descriptor.
struct Descriptor(PSECURITY_DESCRIPTOR);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: `GetNamedSecurityInfoW` allocated the descriptor, which must be freed like this, once.
        unsafe { LocalFree(self.0) };
    }
}

fn groups(path: &Path, rights: u32) -> io::Result<Vec<&'static str>> {
    let name: Vec<u16> = path.as_os_str().encode_wide().take_while(|unit| *unit != 0).chain([0]).collect();
    let mut acl: *mut ACL = null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: `name` is NUL-terminated, both results are writable, and the other results are not requested.
    let code = unsafe {
        let (acl, descriptor) = (&raw mut acl, &raw mut descriptor);
        let (kind, what) = (SE_FILE_OBJECT, DACL_SECURITY_INFORMATION);
        GetNamedSecurityInfoW(name.as_ptr(), kind, what, null_mut(), null_mut(), acl, null_mut(), descriptor)
    };
    if code != ERROR_SUCCESS {
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    let _descriptor = Descriptor(descriptor);
    if acl.is_null() {
        // Without an access control list everybody has full access.
        return Ok(vec![ORDINARY[0].1]);
    }
    // SAFETY: the list is part of the descriptor, which outlives it; the header of the list has its size in bytes.
    let bytes = unsafe { std::slice::from_raw_parts(acl.cast::<u8>(), usize::from((*acl).AclSize)) };
    ordinary_writers(bytes, rights)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "inconsistent access control list"))
}

/// Returns the ordinary groups to which an access control list grants any of `rights`, or `None` if its sizes are
/// inconsistent. Integers are little-endian.
///
/// | structure | offset | field |
/// |---|---|---|
/// | list | 4 | u16 number of entries, which start at 8 |
/// | entry | 0 | u8 type, 0 = allow |
/// | | 1 | u8 flags, 8 = inherited by children only |
/// | | 2 | u16 size |
/// | | 4 | u32 rights |
/// | | 8 | SID |
///
/// Source: \[MS-DTYP\] 2.4.4 and 2.4.5.
fn ordinary_writers(acl: &[u8], rights: u32) -> Option<Vec<&'static str>> {
    const ALLOW: u8 = 0;
    const INHERIT_ONLY: u8 = 8;
    let count = u16::from_le_bytes([*acl.get(4)?, *acl.get(5)?]);
    let mut rest = acl.get(8..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let &[kind, flags, len_low, len_high] = rest.first_chunk()?;
        let len = usize::from(u16::from_le_bytes([len_low, len_high]));
        let entry = rest.get(..len)?;
        rest = &rest[len..];
        if kind != ALLOW || flags & INHERIT_ONLY != 0 {
            // A skipped entry must have a valid size, too.
            if len < 4 {
                return None;
            }
            continue;
        }
        let granted = u32::from_le_bytes(*entry.get(4..)?.first_chunk()?);
        let sid = entry.get(8..)?;
        let group = ORDINARY.iter().find(|(known, _)| sid.starts_with(known));
        if let Some((_, group)) = group
            && granted & rights != 0
            && !found.contains(group)
        {
            found.push(*group);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &[u8] = ORDINARY[4].0;
    const ADMINISTRATORS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];

    fn acl(entries: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, entries.len() as u8, 0, 0, 0];
        for (kind, flags, rights, sid) in entries {
            out.extend([*kind, *flags, (8 + sid.len()) as u8, 0]);
            out.extend(rights.to_le_bytes());
            out.extend(*sid);
        }
        out
    }

    #[test]
    fn only_ordinary_groups_that_may_write_are_found() {
        let read = 0x0012_00a9;
        let full = 0x001f_01ff;
        let rows: [(&str, Vec<u8>, &[&str]); 7] = [
            ("nobody", acl(&[]), &[]),
            ("administrators", acl(&[(0, 0, full, ADMINISTRATORS), (0, 0, read, USERS)]), &[]),
            ("users", acl(&[(0, 0, full, USERS)]), &["Users"]),
            (
                "twice",
                acl(&[(0, 0, full, USERS), (0, 0, 2, USERS), (0, 0, 2, ORDINARY[0].0)]),
                &["Users", "Everyone"],
            ),
            ("children only", acl(&[(0, 8, full, USERS)]), &[]),
            ("deny", acl(&[(1, 0, full, USERS)]), &[]),
            ("generic write", acl(&[(0, 0, 0x4000_0000, USERS)]), &["Users"]),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(ordinary_writers(&bytes, CHANGE_FILE).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn inconsistent_lists_are_rejected() {
        let whole = acl(&[(0, 0, 2, USERS), (1, 0, 2, USERS)]);
        assert!(ordinary_writers(&whole, CHANGE_FILE).is_some());
        for len in 0..whole.len() {
            assert_eq!(ordinary_writers(&whole[..len], CHANGE_FILE), None, "{len} bytes");
        }
        assert_eq!(
            ordinary_writers(&[2, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0], CHANGE_FILE),
            None,
            "empty entry"
        );
    }

    #[test]
    fn the_running_program_is_checked() {
        let own = std::env::current_exe().unwrap();
        for exposure in exposures(&own).unwrap() {
            assert!(own.starts_with(&exposure.path), "{exposure}");
        }
        assert!(exposures(Path::new(r"C:\no such folder\no such file")).is_err());
    }
}
