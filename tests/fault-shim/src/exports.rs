//! The replaced functions of the C library.

use crate::image::{Image, Watched, image};
use crate::raw;
use libc::{c_char, c_int, c_void, iovec, off_t, size_t, ssize_t};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;

/// Runs `call`, which writes to a watched file. Afterwards `start` returns the offset at which it started.
fn writing(fd: c_int, call: impl FnOnce() -> ssize_t, start: impl FnOnce(u64) -> u64) -> ssize_t {
    let Some((image, file)) = watched(fd) else { return call() };
    let mut state = image.lock();
    if let Some(error) = image.control(false).write {
        image.injected(b'w');
        raw::set_errno(error);
        return -1;
    }
    let written = call();
    if let Ok(len) = u64::try_from(written) {
        let start = start(len);
        state.wrote(&file, start, start + len);
    }
    written
}

fn watched(fd: c_int) -> Option<(&'static Image, Watched)> {
    let image = image()?;
    Some((image, image.watched(fd)?))
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
    writing(fd, || raw::write(fd, data, len), |len| raw::position(fd).saturating_sub(len))
}

#[unsafe(no_mangle)]
extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    writing(fd, || raw::writev(fd, parts, count), |len| raw::position(fd).saturating_sub(len))
}

#[unsafe(no_mangle)]
extern "C" fn pwrite(fd: c_int, data: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    writing(fd, || raw::pwrite(fd, data, len, offset), |_| offset as u64)
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, data: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    pwrite(fd, data, len, offset)
}

fn sync(fd: c_int, data_only: bool) -> c_int {
    let Some((image, file)) = watched(fd) else { return raw::sync(fd, data_only) };
    if image.sync(fd, &file) {
        return 0;
    }
    raw::set_errno(libc::EIO);
    -1
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, false)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, true)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    let Some((image, file)) = watched(fd) else { return raw::ftruncate(fd, len) };
    let mut state = image.lock();
    let result = raw::ftruncate(fd, len);
    if result == 0 {
        state.truncated(&file, len as u64);
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    ftruncate(fd, len)
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let Some(image) = image() else { return raw::rename(from, to) };
    // SAFETY: the caller guarantees both strings, as for the C library.
    let (from_path, to_path) = unsafe { (path(from), path(to)) };
    let names = image.name(from_path).zip(image.name(to_path));
    let mut state = image.lock();
    state.forget(to_path);
    let result = raw::rename(from, to);
    if result == 0
        && let Some((from, to)) = names
    {
        image.renamed(&from, Some(&to));
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn unlink(name: *const c_char) -> c_int {
    let Some(image) = image() else { return raw::unlink(name) };
    // SAFETY: the caller guarantees the string, as for the C library.
    let path = unsafe { path(name) };
    let watched = image.name(path);
    let mut state = image.lock();
    if watched.is_some() {
        state.forget(path);
    }
    let result = raw::unlink(name);
    if result == 0
        && let Some(name) = watched
    {
        image.renamed(&name, None);
    }
    result
}

/// # Safety
///
/// `name` is a string with a final NUL that outlives the result.
unsafe fn path<'a>(name: *const c_char) -> &'a OsStr {
    // SAFETY: by the function's own condition.
    OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())
}
