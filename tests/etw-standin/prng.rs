//! bcryptprimitives.dll with the only function that Rust's standard library imports from it, for Wine, which lacks this DLL
//! before version 9. `wine-runner` compiles it; it is not part of any package.

#![no_std]
#![no_main]

use core::ffi::c_void;

#[link(name = "advapi32")]
unsafe extern "system" {
    /// `RtlGenRandom`, under the name by which it is exported.
    fn SystemFunction036(buffer: *mut u8, len: u32) -> u8;
}

/// Fills `buffer` with random bytes.
///
/// # Safety
///
/// `buffer` addresses `len` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ProcessPrng(mut buffer: *mut u8, mut len: usize) -> i32 {
    while len > 0 {
        let part = len.min(1 << 28);
        // SAFETY: `part` is at most the remainder of the `len` bytes that the caller guarantees.
        if unsafe { SystemFunction036(buffer, part as u32) } == 0 {
            return 0;
        }
        // SAFETY: the result is at most one past the end.
        buffer = unsafe { buffer.add(part) };
        len -= part;
    }
    1
}

#[unsafe(no_mangle)]
extern "system" fn DllMain(_module: *mut c_void, _reason: u32, _reserved: *mut c_void) -> i32 {
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
