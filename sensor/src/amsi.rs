//! Event 1101 of Microsoft-Antimalware-Scan-Interface: what a program hands to the antimalware scanner.
//!
//! | field | type | |
//! |---|---|---|
//! | session | pointer | 8 bytes, 4 from a 32-bit process |
//! | scanStatus | u8 | |
//! | scanResult | u32 | 0 clean, 1 not detected, 0x4000 to 0x4FFF blocked by an administrator, 0x8000 and above detected |
//! | appname | string | who asks: `PowerShell_` *file* `_` *version*, `VBScript`, `OFFICE_VBA`, `DotNet` … |
//! | contentname | string | the script's file; empty for what comes from none |
//! | contentsize | u32 | bytes of `content` |
//! | originalsize | u32 | bytes that the program handed over |
//! | content | `contentsize` bytes | from PowerShell: UTF-16LE |
//! | hash | 32 bytes | SHA-256 |
//! | contentFiltered | 4-byte boolean | |
//! | hashoriginalcontent | 32 bytes | from version 1 on |
//!
//! Little-endian, nothing aligned; strings are UTF-16LE with a NUL. Sources: the fields as Windows lists them (Detection
//! Wiki, page microsoft-antimalware-scan-interface; M. Graeber's scripts Get-AMSIEvent, which read the first ones by
//! position, and say that Windows Script Host leaves `contentname` out), `AMSI_RESULT` of `amsi.h`, and the name that
//! PowerShell gives itself (`AmsiUtils.Init` in PowerShell's `SecuritySupport.cs`), which recordings show too.
//!
//! Only content of PowerShell is searched: the rules are about PowerShell, other hosts' content need not be text, and
//! that of Windows Script Host is laid out differently. What stands behind the content is not needed and not asked for,
//! so that later versions may add to it.

use std::ops::RangeInclusive;

/// Units with which PowerShell's name for itself begins.
const POWERSHELL: &[u8; 20] = b"P\0o\0w\0e\0r\0S\0h\0e\0l\0l\0";
/// Offset of `appname` in events of 64-bit and of 32-bit processes: behind session, status and result.
const APP_NAME_AT: [usize; 2] = [13, 9];
/// Bytes of the SHA-256 behind the content.
const HASH_LEN: usize = 32;
/// Bytes of `session` as [`encode`] writes it: that of a 64-bit process.
const SESSION_LEN: usize = 8;

/// Scan results by which an administrator has blocked content.
const BLOCKED: RangeInclusive<u32> = 0x4000..=0x4FFF;
/// The least scan result that means malware.
const DETECTED: u32 = 0x8000;

/// What an event says, as far as it is used. Strings are UTF-16LE without their NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The scanner's answer, an `AMSI_RESULT`.
    pub result: u32,
    /// Who asked.
    pub app_name: &'a [u8],
    /// The script's file.
    pub content_name: &'a [u8],
    /// What was handed over, or what Windows has kept of it.
    pub content: &'a [u8],
}

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmsiError {
    /// It ends too early.
    #[error("expected {what} at byte {at} of an AMSI event, found its end")]
    Short {
        /// What should be there.
        what: &'static str,
        /// Where it should begin.
        at: usize,
    },
    /// A string has no end.
    #[error("expected {what} with a NUL from byte {at} of an AMSI event on, found none")]
    Endless {
        /// Which string.
        what: &'static str,
        /// Where it begins.
        at: usize,
    },
}

/// Whether the content was surely handed over by somebody else than PowerShell: two looks, and nothing is parsed.
/// A payload too short to tell is not somebody else's; [`decode`] refuses it.
pub fn is_foreign(payload: &[u8]) -> bool {
    app_name_at(payload).is_none() && payload.len() >= APP_NAME_AT[0] + POWERSHELL.len()
}

/// Where PowerShell's name begins. The two places cannot both hold it.
fn app_name_at(payload: &[u8]) -> Option<usize> {
    APP_NAME_AT.into_iter().find(|at| payload.get(*at..).is_some_and(|rest| rest.starts_with(POWERSHELL)))
}

/// Reads the payload of an event of PowerShell.
///
/// # Errors
///
/// [`AmsiError`] for a payload that ends before the hash behind its content, and so for sizes that lie.
///
/// # Complexity
///
/// Linear in the two names; the content is not looked at. Allocates nothing.
pub fn decode(payload: &[u8]) -> Result<Scan<'_>, AmsiError> {
    let app_name_at = app_name_at(payload).unwrap_or(APP_NAME_AT[0]);
    let mut input = Input { payload, at: app_name_at - size_of::<u32>() };
    let result = input.number("the scan result")?;
    let app_name = input.string("the application's name")?;
    let content_name = input.string("the content's name")?;
    let content_len = input.number("the content's size")?;
    input.number("the original size")?;
    // A length of 32 bits fits.
    let content = input.take("the content", content_len as usize)?;
    input.take("a hash of 32 bytes", HASH_LEN)?;
    Ok(Scan { result, app_name, content_name, content })
}

/// A checked reader.
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

    /// Up to a NUL unit, which stands at an even distance from the string's first byte, wherever that is.
    fn string(&mut self, what: &'static str) -> Result<&'a [u8], AmsiError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let units = rest.as_chunks::<2>().0;
        let endless = AmsiError::Endless { what, at: self.at };
        let len = 2 * units.iter().position(|unit| *unit == [0, 0]).ok_or(endless)?;
        let string = self.take(what, len)?;
        self.at += 2;
        Ok(string)
    }
}

impl Scan<'_> {
    /// Appends the form in which the matcher searches it, [`etwsieve_matcher::amsi`]: behind content and name follow
    /// the scan result and the application's name. Never longer than the event's own payload.
    pub fn lay_out(&self, out: &mut Vec<u8>) {
        etwsieve_matcher::amsi::lay_out(self.content, self.content_name, out);
        out.extend_from_slice(&self.result.to_le_bytes());
        out.extend_from_slice(self.app_name);
    }

    /// Appends the payload of such an event by a 64-bit process, for sources that hold it field by field. Strings end
    /// at their first NUL. Hashes are zero: nobody asks for them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; SESSION_LEN + 1]);
        out.extend_from_slice(&self.result.to_le_bytes());
        for name in [self.app_name, self.content_name] {
            let units = name.as_chunks::<2>().0;
            let len = units.iter().position(|unit| *unit == [0, 0]).unwrap_or(units.len());
            out.extend_from_slice(units[..len].as_flattened());
            out.extend_from_slice(&[0, 0]);
        }
        // Sources have bounds of their own, far below 4 GB.
        let len = (self.content.len() as u32).to_le_bytes();
        out.extend_from_slice(&len);
        out.extend_from_slice(&len);
        out.extend_from_slice(self.content);
        out.extend_from_slice(&[0; HASH_LEN + size_of::<u32>()]);
    }

    /// Bytes that [`encode`](Self::encode) appends at most.
    pub fn encoded_len_max(&self) -> usize {
        let fixed = SESSION_LEN + 1 + 4 + 2 * 2 + 2 * 4 + HASH_LEN + 4;
        fixed + self.app_name.len() + self.content_name.len() + self.content.len()
    }
}

/// Scan result and application's name of a payload that [`Scan::lay_out`] has written.
pub fn kept(laid_out: &[u8]) -> Option<(u32, &[u8])> {
    let (result, app_name) = etwsieve_matcher::amsi::rest(laid_out).split_first_chunk()?;
    Some((u32::from_le_bytes(*result), app_name))
}

/// A scan result in a word, as outputs for people show it.
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
    use super::{AmsiError, decode, is_foreign, kept, result_word};
    use etwsieve_matcher::{EventKind, Field, Fields};

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    /// A payload by the table above, written without the encoder.
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
    fn every_version_and_pointer_size_is_read() {
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
            assert!(!is_foreign(&bytes), "{row}");
            assert_eq!(scan.result, 32768, "{row}");
            assert_eq!((scan.app_name, scan.content_name), (&wide(APP)[..], &wide(name)[..]), "{row}");
            assert_eq!(scan.content, script, "{row}");
            let mut laid_out = Vec::new();
            scan.lay_out(&mut laid_out);
            assert!(laid_out.len() <= bytes.len(), "{row}: it fits where the event did");
            let fields = Fields::split(EventKind::Amsi, &laid_out);
            assert_eq!(fields.text(Field::ScriptBlockText), Some(&script[..]), "{row}");
            assert_eq!(fields.text(Field::Path), Some(&wide(name)[..]), "{row}");
            assert_eq!(kept(&laid_out), Some((32768, &wide(APP)[..])), "{row}");
            let mut again = Vec::new();
            scan.encode(&mut again);
            assert!(again.len() <= scan.encoded_len_max(), "{row}");
            assert_eq!(decode(&again), Ok(scan), "{row}");
        }
    }

    #[test]
    fn content_of_others_is_told_by_its_name() {
        for app in ["VBScript", "DotNet", "powershell.exe", "", "Power", "OFFICE_VBA"] {
            assert!(is_foreign(&payload(8, app, "", &wide("x"), 36)), "{app}");
        }
        assert!(!is_foreign(&payload(4, "PowerShell", "", &wide("x"), 36)));
    }

    #[test]
    fn whatever_is_cut_is_refused() {
        for session in [4, 8] {
            let bytes = payload(session, APP, "n", &wide("Get-Alias"), 32);
            for len in 0..bytes.len() {
                decode(&bytes[..len]).expect_err("a payload cut short");
            }
        }
        let endless: Vec<u8> = [vec![0; 13], wide("PowerShell")].concat();
        assert!(matches!(decode(&endless), Err(AmsiError::Endless { at: 13, .. })));
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let mut bytes = payload(8, "PowerShell", "", &wide("Get-Alias"), 36);
        let at = 13 + 22 + 2;
        for (lie, is_refused) in [(0, false), (17, false), (22, false), (23, true), (u32::MAX, true)] {
            bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            assert_eq!(decode(&bytes).is_err(), is_refused, "{lie}");
            if let Ok(scan) = decode(&bytes) {
                let mut laid_out = Vec::new();
                scan.lay_out(&mut laid_out);
                assert!(laid_out.len() <= bytes.len(), "{lie}");
            }
        }
    }

    #[test]
    fn results_have_words() {
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
