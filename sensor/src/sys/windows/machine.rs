//! The name of the machine.
#![expect(unsafe_code, reason = "the computer's name is written to a buffer")]

use etwsieve_host::wide::text;
use windows_sys::Win32::System::SystemInformation::{
    ComputerNameDnsFullyQualified, ComputerNameNetBIOS, GetComputerNameExW,
};

/// Maximum length of a name with its NUL, in UTF-16 units; a DNS name has at most 253 characters.
const NAME_UNITS_MAX: usize = 256;

/// Returns the full DNS name of the computer, as event records have it; otherwise its NetBIOS name; otherwise an empty
/// string.
pub(super) fn name() -> String {
    for kind in [ComputerNameDnsFullyQualified, ComputerNameNetBIOS] {
        let mut units = [0u16; NAME_UNITS_MAX];
        let mut len = units.len() as u32;
        // SAFETY: `len` is the length of the buffer in units.
        if unsafe { GetComputerNameExW(kind, units.as_mut_ptr(), &raw mut len) } != 0 && units[0] != 0 {
            return text(&units);
        }
    }
    String::new()
}
