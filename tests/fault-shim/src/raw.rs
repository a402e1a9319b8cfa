//! The system calls, which bypass the functions that this library replaces.

use libc::{c_char, c_int, c_long, c_void, iovec, off_t, size_t, ssize_t};
use std::io;

pub(crate) fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller of the replaced `write` guarantees `data` and `len`, as for the C library.
    (unsafe { libc::syscall(libc::SYS_write, fd, data, len) }) as ssize_t
}

pub(crate) fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller of the replaced `writev` guarantees the array, as for the C library.
    (unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) }) as ssize_t
}

pub(crate) fn pwrite(fd: c_int, data: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    // SAFETY: as for `write`.
    (unsafe { libc::syscall(libc::SYS_pwrite64, fd, data, len, offset) }) as ssize_t
}

pub(crate) fn sync(fd: c_int, data_only: bool) -> c_int {
    let number = if data_only { libc::SYS_fdatasync } else { libc::SYS_fsync };
    // SAFETY: no memory is involved.
    (unsafe { libc::syscall(number, fd) }) as c_int
}

pub(crate) fn ftruncate(fd: c_int, len: off_t) -> c_int {
    // SAFETY: no memory is involved.
    (unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) }) as c_int
}

pub(crate) fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = c_long::from(libc::AT_FDCWD);
    // SAFETY: the caller of the replaced `rename` guarantees both strings, as for the C library.
    (unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) }) as c_int
}

pub(crate) fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller of the replaced `unlink` guarantees the string, as for the C library.
    (unsafe { libc::syscall(libc::SYS_unlinkat, c_long::from(libc::AT_FDCWD), path, 0) }) as c_int
}

/// Sets the error of the next return value -1.
pub(crate) fn set_errno(error: c_int) {
    // SAFETY: the address of this thread's `errno` is valid as long as the thread lives.
    unsafe { *libc::__errno_location() = error };
}

/// Calls `fstat`.
pub(crate) fn stat(fd: c_int) -> Option<libc::stat> {
    // SAFETY: all bytes of a `stat` may be zero.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is a valid place for one.
    (unsafe { libc::fstat(fd, &raw mut stat) } == 0).then_some(stat)
}

/// Returns the offset of the next `write`.
pub(crate) fn position(fd: c_int) -> u64 {
    // SAFETY: no memory is involved.
    u64::try_from(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }).unwrap_or(0)
}

/// Reads at an offset without moving the descriptor's position. Returns fewer bytes only at the end of the file.
///
/// # Errors
///
/// `EBADF` if the descriptor is for writing only.
pub(crate) fn read_at(fd: c_int, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: `rest` is writable for its length.
        let read =
            unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), (offset + done as u64) as off_t) };
        match usize::try_from(read) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at an offset.
///
/// # Errors
///
/// Errors of the file system.
pub(crate) fn write_at(fd: c_int, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset as off_t);
        let Ok(written) = usize::try_from(written) else { return Err(io::Error::last_os_error()) };
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
