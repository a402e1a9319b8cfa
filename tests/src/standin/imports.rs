//! Reads the import table of a Windows program, and replaces a DLL in it.
//!
//! Format: "PE Format" of Microsoft's documentation, 64-bit (PE32+). Only the standard library is used, so that the runner of
//! tests can compile this file separately.

use std::fmt;

const PE_AT: usize = 0x3C;
const OPTIONAL_AT: usize = 24;
const MAGIC_64: u16 = 0x20B;
const DIRECTORIES_AT: usize = 112;
const DIRECTORY_EXPORT: usize = 0;
const DIRECTORY_IMPORT: usize = 1;
const SECTION_LEN: usize = 40;
const DESCRIPTOR_LEN: usize = 20;
/// Maximum numbers of table entries, since invalid tables may not end.
const DESCRIPTORS_MAX: usize = 4096;
const NAMES_MAX: usize = 65_536;

/// The controller and consumer functions that the stand-in implements.
pub const FUNCTIONS: [&str; 9] = [
    "CloseTrace",
    "ControlTraceW",
    "EnableTraceEx2",
    "EnumerateTraceGuidsEx",
    "OpenTraceW",
    "ProcessTrace",
    "QueryAllTracesW",
    "StartTraceW",
    "TraceQueryInformation",
];

/// An error in a program or in its imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// It is not a 64-bit Windows program, or its tables point outside of it.
    Format {
        /// Offset in bytes.
        offset: usize,
        /// The expected structure.
        expected: &'static str,
    },
    /// The names of the two DLLs differ in length.
    NameLength,
    /// The program imports functions that the stand-in does not export.
    Missing(Vec<String>),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { offset, expected } => write!(f, "no {expected} at byte {offset}"),
            Self::NameLength => f.write_str("both DLLs need names of one length"),
            Self::Missing(names) => write!(
                f,
                "the stand-in does not export {}: a function that has nothing to do with event traces belongs into \
                 tests/etw-standin/forwards.def, one that controls or reads traces must be written",
                names.join(", ")
            ),
        }
    }
}

impl std::error::Error for ImportError {}

/// Returns the names imported from `dll`, ignoring case, in order. Imports by number appear as `#12`.
///
/// # Errors
///
/// [`ImportError::Format`].
pub fn imported(program: &[u8], dll: &str) -> Result<Vec<String>, ImportError> {
    let image = Image::new(program)?;
    let mut names = Vec::new();
    for descriptor in image.descriptors()? {
        if descriptor.dll.eq_ignore_ascii_case(dll) {
            names.extend(image.thunks(&descriptor)?);
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Returns the names that a DLL exports, including forwarded ones.
///
/// # Errors
///
/// [`ImportError::Format`].
pub fn exported(dll: &[u8]) -> Result<Vec<String>, ImportError> {
    let image = Image::new(dll)?;
    let Some(table) = image.directory(DIRECTORY_EXPORT)? else { return Ok(Vec::new()) };
    let count = image.u32(table + 24)? as usize;
    let names = image.offset(image.u32(table + 32)?)?;
    (0..count.min(NAMES_MAX)).map(|n| image.text(image.offset(image.u32(names + 4 * n)?)?)).collect()
}

/// Returns whether the program imports a function from advapi32 that the stand-in implements.
///
/// # Errors
///
/// [`ImportError::Format`].
pub fn uses_traces(program: &[u8]) -> Result<bool, ImportError> {
    Ok(imported(program, "advapi32.dll")?.iter().any(|name| FUNCTIONS.contains(&name.as_str())))
}

/// Replaces imports of the DLL `old` in `program` with imports of the DLL `new`, whose contents are `stand_in`. Returns the
/// number of changed entries of the import table; there may be several, in any letter case.
///
/// # Errors
///
/// [`ImportError`]; the program is then unchanged.
pub fn rename(program: &mut [u8], old: &str, new: &str, stand_in: &[u8]) -> Result<usize, ImportError> {
    if old.len() != new.len() {
        return Err(ImportError::NameLength);
    }
    let exported = exported(stand_in)?;
    let mut missing = imported(program, old)?;
    missing.retain(|name| !exported.contains(name));
    if !missing.is_empty() {
        return Err(ImportError::Missing(missing));
    }
    let descriptors = Image::new(program)?.descriptors()?;
    let mut count = 0;
    for descriptor in descriptors {
        if descriptor.dll.eq_ignore_ascii_case(old) {
            program[descriptor.name_at..descriptor.name_at + new.len()].copy_from_slice(new.as_bytes());
            count += 1;
        }
    }
    Ok(count)
}

struct Descriptor {
    dll: String,
    name_at: usize,
    thunks: u32,
}

struct Section {
    address: u32,
    len: u32,
    file_at: u32,
}

struct Image<'a> {
    bytes: &'a [u8],
    optional_at: usize,
    sections: Vec<Section>,
}

impl<'a> Image<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ImportError> {
        let mut image = Self { bytes, optional_at: 0, sections: Vec::new() };
        let pe = image.u32(PE_AT)? as usize;
        if image.bytes.get(pe..pe.saturating_add(4)) != Some(b"PE\0\0") {
            return Err(ImportError::Format { offset: pe, expected: "PE signature" });
        }
        image.optional_at = pe + OPTIONAL_AT;
        if image.u16(image.optional_at)? != MAGIC_64 {
            return Err(ImportError::Format {
                offset: image.optional_at,
                expected: "64-bit optional header",
            });
        }
        let count = image.u16(pe + 6)?;
        let table = image.optional_at + usize::from(image.u16(pe + 20)?);
        for n in 0..usize::from(count) {
            let at = table + SECTION_LEN * n;
            let len = image.u32(at + 8)?.max(image.u32(at + 16)?);
            image.sections.push(Section { len, address: image.u32(at + 12)?, file_at: image.u32(at + 20)? });
        }
        Ok(image)
    }

    fn u16(&self, at: usize) -> Result<u16, ImportError> {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field
            .map(|bytes| u16::from_le_bytes(*bytes))
            .ok_or(ImportError::Format { offset: at, expected: "u16" })
    }

    fn u32(&self, at: usize) -> Result<u32, ImportError> {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field
            .map(|bytes| u32::from_le_bytes(*bytes))
            .ok_or(ImportError::Format { offset: at, expected: "u32" })
    }

    fn u64(&self, at: usize) -> Result<u64, ImportError> {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or(ImportError::Format { offset: at, expected: "u64" })
    }

    fn text(&self, at: usize) -> Result<String, ImportError> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == 0);
        let len = len.ok_or(ImportError::Format { offset: at, expected: "name with an end" })?;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    /// Converts an address in memory to an offset in the file.
    fn offset(&self, address: u32) -> Result<usize, ImportError> {
        let of = |section: &Section| {
            let within = address.checked_sub(section.address).filter(|within| *within < section.len)?;
            Some(section.file_at as usize + within as usize)
        };
        let expected = "section for an address";
        self.sections.iter().find_map(of).ok_or(ImportError::Format { offset: address as usize, expected })
    }

    fn directory(&self, number: usize) -> Result<Option<usize>, ImportError> {
        match self.u32(self.optional_at + DIRECTORIES_AT + 8 * number)? {
            0 => Ok(None),
            address => self.offset(address).map(Some),
        }
    }

    fn descriptors(&self) -> Result<Vec<Descriptor>, ImportError> {
        let mut descriptors = Vec::new();
        let Some(table) = self.directory(DIRECTORY_IMPORT)? else { return Ok(descriptors) };
        for n in 0..DESCRIPTORS_MAX {
            let at = table + DESCRIPTOR_LEN * n;
            let name = self.u32(at + 12)?;
            if name == 0 {
                break;
            }
            let name_at = self.offset(name)?;
            let lookup = self.u32(at)?;
            let thunks = if lookup == 0 { self.u32(at + 16)? } else { lookup };
            descriptors.push(Descriptor { dll: self.text(name_at)?, name_at, thunks });
        }
        Ok(descriptors)
    }

    fn thunks(&self, descriptor: &Descriptor) -> Result<Vec<String>, ImportError> {
        let table = self.offset(descriptor.thunks)?;
        let mut names = Vec::new();
        for n in 0..NAMES_MAX {
            match self.u64(table + 8 * n)? {
                0 => break,
                number if number >> 63 == 1 => names.push(format!("#{}", number as u16)),
                address => names.push(self.text(self.offset(address as u32)? + 2)?),
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::{ImportError, imported, rename, uses_traces};

    #[test]
    fn refuses_what_is_no_program() {
        let mut pe = vec![0; 0x100];
        pe[0x3C] = 0x40;
        let rows: [(&str, &[u8], &str); 4] = [
            ("nothing", &[], "u32"),
            ("text", &[b'a'; 0x100], "PE signature"),
            ("zeros", &[0; 0x100], "PE signature"),
            (
                "no magic",
                &{
                    pe[0x40..0x44].copy_from_slice(b"PE\0\0");
                    pe
                },
                "64-bit optional header",
            ),
        ];
        for (name, bytes, expected) in rows {
            let Err(ImportError::Format { expected: found, .. }) = imported(bytes, "a.dll") else {
                panic!("{name}")
            };
            assert_eq!(found, expected, "{name}");
            assert!(uses_traces(bytes).is_err(), "{name}");
        }
        assert_eq!(rename(&mut [], "a.dll", "ab.dll", &[]), Err(ImportError::NameLength));
    }
}
