//! Bytes followed by memory that cannot be read.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_NOACCESS, PAGE_READWRITE, VirtualAlloc, VirtualFree,
    VirtualProtect,
};

const PAGE_LEN: usize = 4096;
const ALIGNMENT: usize = 8;
/// Fills the bytes between the data and the guard, of which there are up to seven.
const POISON: u8 = 0xEE;

/// A copy of bytes at the end of a page, followed by a page that cannot be read.
pub(crate) struct Guarded {
    pages: NonNull<c_void>,
    data: *mut c_void,
}

impl Guarded {
    /// Copies `bytes` to an address that is a multiple of 8, plus 1 if `is_odd`.
    pub(crate) fn new(bytes: &[u8], is_odd: bool) -> io::Result<Self> {
        let offset = usize::from(is_odd);
        let used = (offset + bytes.len()).next_multiple_of(ALIGNMENT);
        let open = used.next_multiple_of(PAGE_LEN);
        // SAFETY: the system chooses the address; the result is checked for null.
        let pages = unsafe {
            VirtualAlloc(std::ptr::null(), open + PAGE_LEN, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)
        };
        let pages = NonNull::new(pages).ok_or_else(io::Error::last_os_error)?;
        let start = pages.as_ptr().cast::<u8>();
        // SAFETY: `open` bytes are there, of which the last `used` are poisoned and then overwritten from `offset` on;
        // `offset` and the length of `bytes` together are at most `used`.
        let data = unsafe {
            let data = start.add(open - used);
            data.write_bytes(POISON, used);
            data.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            data.add(offset)
        };
        let mut before = 0;
        // SAFETY: the last page belongs to this allocation and nothing points into it.
        let is_guarded =
            unsafe { VirtualProtect(start.add(open).cast(), PAGE_LEN, PAGE_NOACCESS, &raw mut before) };
        let guarded = Self { pages, data: data.cast() };
        if is_guarded == 0 { Err(io::Error::last_os_error()) } else { Ok(guarded) }
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the pages belong to this value, and nothing uses `as_ptr` any more.
        unsafe { VirtualFree(self.pages.as_ptr(), 0, MEM_RELEASE) };
    }
}
