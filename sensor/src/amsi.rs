//! Event 1101 of Microsoft-Antimalware-Scan-Interface: content that a program passes to the antimalware scanner.
//!
//! | field | type | |
//! |---|---|---|
//! | session | pointer | 8 bytes, 4 from a 32-bit process |
//! | scanStatus | u8 | |
//! | scanResult | u32 | 0 clean, 1 not detected, 0x4000 to 0x4FFF blocked by an administrator, 0x8000 and above detected |
//! | appname | string | the requesting program: `PowerShell_` *file* `_` *version*, `VBScript`, `OFFICE_VBA`, `DotNet` … |
//! | contentname | string | file of the script; empty if there is none |
//! | contentsize | u32 | bytes of `content` |
//! | originalsize | u32 | bytes that the program passed |
//! | content | `contentsize` bytes | from PowerShell: UTF-16LE |
//! | hash | 32 bytes | SHA-256 |
//! | contentFiltered | 4-byte boolean | |
//! | hashoriginalcontent | 32 bytes | since version 1 |
//!
//! All fields are little-endian and unaligned; strings are UTF-16LE with a final NUL. Sources: the field list of
//! Windows (Detection Wiki, page microsoft-antimalware-scan-interface); M. Graeber's scripts Get-AMSIEvent, which read
//! the first fields by position and note that Windows Script Host omits `contentname`; `AMSI_RESULT` in `amsi.h`; and
//! the name that PowerShell passes (`AmsiUtils.Init` in PowerShell's `SecuritySupport.cs`), which recordings confirm.
//!
//! Only content from PowerShell is searched: the rules are written for PowerShell, content of other programs may not be
//! text, and events of Windows Script Host have a different layout. Fields after the hash are not read, so that later
//! versions may change them.

use std::ops::RangeInclusive;

/// Start of the application name that PowerShell passes, in UTF-16LE.
const POWERSHELL: &[u8; 20] = b"P\0o\0w\0e\0r\0S\0h\0e\0l\0l\0";
/// Offset of `appname` in events of 64-bit and of 32-bit processes: after session, status and result.
const APP_NAME_AT: [usize; 2] = [13, 9];
/// Length of the SHA-256 after the content.
const HASH_LEN: usize = 32;
/// Length of `session` as [`encode`] writes it, that of a 64-bit process.
const SESSION_LEN: usize = 8;

/// Scan results of content that an administrator has blocked.
const BLOCKED: RangeInclusive<u32> = 0x4000..=0x4FFF;
/// The lowest scan result that means malware.
const DETECTED: u32 = 0x8000;

/// The fields of an event that are used. Strings are UTF-16LE without the final NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Result of the scan, an `AMSI_RESULT`.
    pub result: u32,
    /// The requesting program.
    pub app_name: &'a [u8],
    /// File of the script.
    pub content_name: &'a [u8],
    /// The content that was scanned, or the part of it that Windows recorded.
    pub content: &'a [u8],
}

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmsiError {
    /// The payload ends too early.
    #[error("expected {what} at byte {at} of an AMSI event, found the end")]
    Short {
        /// The field that is missing.
        what: &'static str,
        /// Expected offset of the field.
        at: usize,
    },
    /// A string has no final NUL.
    #[error("expected {what} with a final NUL at byte {at} of an AMSI event, found no NUL")]
    Unterminated {
        /// The string.
        what: &'static str,
        /// Offset of the string.
        at: usize,
    },
}

/// Returns whether a program other than PowerShell requested the scan. Compares the application name at its two
/// possible offsets and parses nothing. Returns false for payloads that are too short for a name; [`decode`] rejects
/// them.
pub fn is_from_other_program(payload: &[u8]) -> bool {
    app_name_at(payload).is_none() && payload.len() >= APP_NAME_AT[0] + POWERSHELL.len()
}

/// Returns the offset of PowerShell's application name. It cannot be at both offsets, because they overlap.
fn app_name_at(payload: &[u8]) -> Option<usize> {
    APP_NAME_AT.into_iter().find(|at| payload.get(*at..).is_some_and(|rest| rest.starts_with(POWERSHELL)))
}

/// Decodes the payload of an event that PowerShell requested.
///
/// # Errors
///
/// [`AmsiError`] for a payload that ends before the end of the first hash, which includes wrong sizes.
///
/// # Complexity
///
/// Linear in the two names; the content is not read. Does not allocate.
pub fn decode(payload: &[u8]) -> Result<Scan<'_>, AmsiError> {
    let app_name_at = app_name_at(payload).unwrap_or(APP_NAME_AT[0]);
    let mut input = Input { payload, at: app_name_at - size_of::<u32>() };
    let result = input.number("the scan result")?;
    let app_name = input.string("the application's name")?;
    let content_name = input.string("the content's name")?;
    let content_len = input.number("the content's size")?;
    input.number("the original size")?;
    // `usize` has at least 32 bits.
    let content = input.take("the content", content_len as usize)?;
    input.take("a hash of 32 bytes", HASH_LEN)?;
    Ok(Scan { result, app_name, content_name, content })
}

/// Reads fields with bounds checks.
struct Input<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], AmsiError> {
        let short = AmsiError::Short { what, at: self.at };
        let end = self.at.checked_add(len).ok_or(short)?;
        let taken = self.payload.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, what: &'static str) -> Result<u32, AmsiError> {
        let bytes = self.take(what, size_of::<u32>())?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }

    /// Reads up to a NUL unit, which has an even distance from the start of the string.
    fn string(&mut self, what: &'static str) -> Result<&'a [u8], AmsiError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let units = rest.as_chunks::<2>().0;
        let unterminated = AmsiError::Unterminated { what, at: self.at };
        let len = 2 * units.iter().position(|unit| *unit == [0, 0]).ok_or(unterminated)?;
        let string = self.take(what, len)?;
        self.at += 2;
        Ok(string)
    }
}

impl Scan<'_> {
    /// Appends the form that the matcher searches, [`etwsieve_matcher::amsi`], followed by the scan result and the
    /// application's name. Never longer than the payload of the event.
    pub fn lay_out(&self, out: &mut Vec<u8>) {
        etwsieve_matcher::amsi::lay_out(self.content, self.content_name, out);
        out.extend_from_slice(&self.result.to_le_bytes());
        out.extend_from_slice(self.app_name);
    }

    /// Appends the payload of the event as a 64-bit process writes it, for sources that have separate fields. Strings
    /// end at their first NUL. The hashes, which are not used, are zero.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; SESSION_LEN + 1]);
        out.extend_from_slice(&self.result.to_le_bytes());
        for name in [self.app_name, self.content_name] {
            let units = name.as_chunks::<2>().0;
            let len = units.iter().position(|unit| *unit == [0, 0]).unwrap_or(units.len());
            out.extend_from_slice(units[..len].as_flattened());
            out.extend_from_slice(&[0, 0]);
        }
        // The limits of the sources are far below 4 GB.
        let len = (self.content.len() as u32).to_le_bytes();
        out.extend_from_slice(&len);
        out.extend_from_slice(&len);
        out.extend_from_slice(self.content);
        out.extend_from_slice(&[0; HASH_LEN + size_of::<u32>()]);
    }

    /// Returns the maximum number of bytes that [`encode`](Self::encode) appends.
    pub fn encoded_len_max(&self) -> usize {
        let fixed = SESSION_LEN + 1 + 4 + 2 * 2 + 2 * 4 + HASH_LEN + 4;
        fixed + self.app_name.len() + self.content_name.len() + self.content.len()
    }
}

/// Returns scan result and application name of a payload that [`Scan::lay_out`] has written.
pub fn result_and_app_name(laid_out: &[u8]) -> Option<(u32, &[u8])> {
    let (result, app_name) = etwsieve_matcher::amsi::rest(laid_out).split_first_chunk()?;
    Some((u32::from_le_bytes(*result), app_name))
}

/// Returns the name of a scan result for people.
pub fn result_word(result: u32) -> &'static str {
    match result {
        0 => "clean",
        1 => "not_detected",
        result if BLOCKED.contains(&result) => "blocked_by_admin",
        DETECTED.. => "detected",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::{AmsiError, decode, is_from_other_program, result_and_app_name, result_word};
    use etwsieve_matcher::{EventKind, Field, Fields};

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    /// Creates a payload according to the table above, without the encoder.
    fn payload(session_len: usize, app: &str, name: &str, content: &[u8], tail: usize) -> Vec<u8> {
        let mut bytes = vec![7; session_len];
        bytes.push(0);
        bytes.extend(32768u32.to_le_bytes());
        bytes.extend(wide(app));
        bytes.extend([0, 0]);
        bytes.extend(wide(name));
        bytes.extend([0, 0]);
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend((content.len() as u32 + 9).to_le_bytes());
        bytes.extend(content);
        bytes.extend(vec![0xAA; tail]);
        bytes
    }

    const APP: &str = r"PowerShell_C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe_10.0.18362.1";

    #[test]
    fn every_version_and_pointer_size_is_decoded() {
        let script = wide("Get-Alias\0hidden");
        for (row, session, name, tail) in [
            ("64 bit, version 0", 8, r"C:\a.ps1", 36),
            ("64 bit, version 1", 8, "", 68),
            ("32 bit", 4, r"C:\a.ps1", 36),
            ("boolean of a byte", 8, "x", 33),
            ("hash only", 8, "x", 32),
        ] {
            let bytes = payload(session, APP, name, &script, tail);
            let scan = decode(&bytes).unwrap_or_else(|error| panic!("{row}: {error}"));
            assert!(!is_from_other_program(&bytes), "{row}");
            assert_eq!(scan.result, 32768, "{row}");
            assert_eq!((scan.app_name, scan.content_name), (&wide(APP)[..], &wide(name)[..]), "{row}");
            assert_eq!(scan.content, script, "{row}");
            let mut laid_out = Vec::new();
            scan.lay_out(&mut laid_out);
            assert!(laid_out.len() <= bytes.len(), "{row}: not longer than the event");
            let fields = Fields::split(EventKind::Amsi, &laid_out);
            assert_eq!(fields.text(Field::ScriptBlockText), Some(&script[..]), "{row}");
            assert_eq!(fields.text(Field::Path), Some(&wide(name)[..]), "{row}");
            assert_eq!(result_and_app_name(&laid_out), Some((32768, &wide(APP)[..])), "{row}");
            let mut again = Vec::new();
            scan.encode(&mut again);
            assert!(again.len() <= scan.encoded_len_max(), "{row}");
            assert_eq!(decode(&again), Ok(scan), "{row}");
        }
    }

    #[test]
    fn content_of_other_programs_is_recognised_by_the_name() {
        for app in ["VBScript", "DotNet", "powershell.exe", "", "Power", "OFFICE_VBA"] {
            assert!(is_from_other_program(&payload(8, app, "", &wide("x"), 36)), "{app}");
        }
        assert!(!is_from_other_program(&payload(4, "PowerShell", "", &wide("x"), 36)));
    }

    #[test]
    fn truncated_payloads_are_rejected() {
        for session in [4, 8] {
            let bytes = payload(session, APP, "n", &wide("Get-Alias"), 32);
            for len in 0..bytes.len() {
                decode(&bytes[..len]).expect_err("a truncated payload");
            }
        }
        let unterminated: Vec<u8> = [vec![0; 13], wide("PowerShell")].concat();
        assert!(matches!(decode(&unterminated), Err(AmsiError::Unterminated { at: 13, .. })));
    }

    #[test]
    fn wrong_sizes_are_rejected() {
        let mut bytes = payload(8, "PowerShell", "", &wide("Get-Alias"), 36);
        let at = 13 + 22 + 2;
        for (size, is_rejected) in [(0, false), (17, false), (22, false), (23, true), (u32::MAX, true)] {
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
            assert_eq!(decode(&bytes).is_err(), is_rejected, "{size}");
            if let Ok(scan) = decode(&bytes) {
                let mut laid_out = Vec::new();
                scan.lay_out(&mut laid_out);
                assert!(laid_out.len() <= bytes.len(), "{size}");
            }
        }
    }

    #[test]
    fn scan_results_have_names() {
        for (result, word) in [
            (0, "clean"),
            (1, "not_detected"),
            (2, "other"),
            (0x4000, "blocked_by_admin"),
            (0x4FFF, "blocked_by_admin"),
            (0x5000, "other"),
            (0x7FFF, "other"),
            (0x8000, "detected"),
            (u32::MAX, "detected"),
        ] {
            assert_eq!(result_word(result), word, "{result:#x}");
        }
    }
}
