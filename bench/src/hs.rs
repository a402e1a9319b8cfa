//! Vectorscan and Hyperscan through their C interface, loaded at run time.
//!
//! Debian's packages of both contain a library of the same name, so neither is linked: `bench/peers.sh` puts them into
//! separate folders, and both are loaded into one process. Only the functions that the contestants need are declared: they
//! search for literals, each of which is reported at most once per block.
//!
//! Source of the declarations: `hs_common.h`, `hs_compile.h` and `hs_runtime.h` of version 5.4.
#![expect(unsafe_code, reason = "a C interface")]

use crate::error::BenchError;
use crate::programs::peers_folder;
use libloading::{Library as Loaded, Symbol};
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::Path;
use std::ptr;
use std::sync::LazyLock;

/// Names of the libraries, and the path of the library in its Debian package.
const LIBRARIES: [(&str, &str); 2] = [("vectorscan", "libhs.so.5"), ("hyperscan", "libhs.so.5")];
/// `HS_MODE_BLOCK`.
const MODE_BLOCK: c_uint = 1;
/// `HS_FLAG_CASELESS`.
const FLAG_CASELESS: c_uint = 1;
/// `HS_FLAG_SINGLEMATCH`: a literal is reported once per block.
const FLAG_SINGLEMATCH: c_uint = 8;
/// `HS_SUCCESS`.
const SUCCESS: c_int = 0;

/// `hs_compile_error_t`.
#[repr(C)]
struct CompileError {
    message: *mut c_char,
    expression: c_int,
}

type OnMatch = extern "C" fn(c_uint, c_ulonglong, c_ulonglong, c_uint, *mut c_void) -> c_int;
type CompileLiterals = unsafe extern "C" fn(
    *const *const c_char,
    *const c_uint,
    *const c_uint,
    *const usize,
    c_uint,
    c_uint,
    *const c_void,
    *mut *mut c_void,
    *mut *mut CompileError,
) -> c_int;
type FreeCompileError = unsafe extern "C" fn(*mut CompileError) -> c_int;
type AllocScratch = unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> c_int;
type Scan = unsafe extern "C" fn(
    *const c_void,
    *const c_char,
    c_uint,
    c_uint,
    *mut c_void,
    Option<OnMatch>,
    *mut c_void,
) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void) -> c_int;
type Version = unsafe extern "C" fn() -> *const c_char;

/// A library that was found. It is never unloaded, so its functions remain valid.
#[derive(Debug)]
pub struct Library {
    name: &'static str,
    version: String,
    compile: CompileLiterals,
    free_error: FreeCompileError,
    alloc_scratch: AllocScratch,
    scan: Scan,
    free_scratch: Free,
    free_database: Free,
}

/// A library that was not found.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Name of the library.
    pub name: &'static str,
    /// The reason.
    pub reason: String,
}

/// A literal to search for.
#[derive(Clone, Copy, Debug)]
pub struct Needle<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Ignores the case of ASCII letters.
    pub any_case: bool,
}

/// Vectorscan and Hyperscan, each found or not.
pub fn libraries() -> impl Iterator<Item = Result<&'static Library, &'static Absent>> {
    static ALL: LazyLock<Vec<Result<Library, Absent>>> = LazyLock::new(|| {
        LIBRARIES
            .iter()
            .map(|&(name, file)| {
                let path = peers_folder().join(name).join(file);
                Library::load(name, &path).map_err(|reason| Absent { name, reason })
            })
            .collect()
    });
    ALL.iter().map(Result::as_ref)
}

impl Library {
    fn load(name: &'static str, path: &Path) -> Result<Self, String> {
        if !path.exists() {
            return Err("not installed; bench/peers.sh does it".to_owned());
        }
        // SAFETY: loading runs the library's initialisers. It is the file that `peers.sh` took out of Debian's
        // package; whoever can replace it can replace this program too.
        let loaded = unsafe { Loaded::new(path) }.map_err(|error| error.to_string())?;
        let loaded: &'static Loaded = Box::leak(Box::new(loaded));
        // SAFETY: the types of these six functions are those of the headers named above.
        let library = unsafe {
            let version: Version = function(loaded, c"hs_version")?;
            Self {
                name,
                version: CStr::from_ptr(version()).to_string_lossy().into_owned(),
                compile: function(loaded, c"hs_compile_lit_multi")?,
                free_error: function(loaded, c"hs_free_compile_error")?,
                alloc_scratch: function(loaded, c"hs_alloc_scratch")?,
                scan: function(loaded, c"hs_scan")?,
                free_scratch: function(loaded, c"hs_free_scratch")?,
                free_database: function(loaded, c"hs_free_database")?,
            }
        };
        Ok(library)
    }

    /// The name in reports.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The version that the library reports.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles literals, which are numbered in this order.
    ///
    /// # Errors
    ///
    /// [`BenchError::Peer`] with the message of the library, and for an empty literal.
    pub fn compile<'n>(
        &'static self,
        needles: impl Iterator<Item = Needle<'n>>,
    ) -> Result<Database, BenchError> {
        let needles: Vec<Needle<'n>> = needles.collect();
        if needles.iter().any(|needle| needle.bytes.is_empty()) {
            // Some versions read the first byte of an empty literal.
            return Err(self.failed("an empty literal".to_owned()));
        }
        let bytes: Vec<*const c_char> = needles.iter().map(|needle| needle.bytes.as_ptr().cast()).collect();
        let lens: Vec<usize> = needles.iter().map(|needle| needle.bytes.len()).collect();
        let flag = |any_case| if any_case { FLAG_CASELESS | FLAG_SINGLEMATCH } else { FLAG_SINGLEMATCH };
        let flags: Vec<c_uint> = needles.iter().map(|needle| flag(needle.any_case)).collect();
        let ids: Vec<c_uint> = (0..needles.len() as c_uint).collect();
        let (mut database, mut error) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the four arrays have as many elements as is said, and each literal as many bytes, at least one;
        // they live until the call returns, which keeps none of them. A null platform means this processor. The two
        // results are written to variables of their types.
        let code = unsafe {
            (self.compile)(
                bytes.as_ptr(),
                flags.as_ptr(),
                ids.as_ptr(),
                lens.as_ptr(),
                ids.len() as c_uint,
                MODE_BLOCK,
                ptr::null(),
                &raw mut database,
                &raw mut error,
            )
        };
        if code != SUCCESS {
            return Err(self.failed(format!("compiling: {code} {}", self.message(error))));
        }
        let mut scratch = ptr::null_mut();
        // SAFETY: the database was just made, and a null scratch asks for a new one.
        let code = unsafe { (self.alloc_scratch)(database, &raw mut scratch) };
        let result =
            Database { library: self, compiled: database, scratch, found: Vec::with_capacity(needles.len()) };
        if code == SUCCESS { Ok(result) } else { Err(self.failed(format!("scratch: {code}"))) }
    }

    fn message(&self, error: *mut CompileError) -> String {
        if error.is_null() {
            return String::new();
        }
        // SAFETY: the library made this error for us; its message is a C string that lives until it is freed.
        let text = unsafe { CStr::from_ptr((*error).message) }.to_string_lossy().into_owned();
        // SAFETY: it is freed once, and not looked at again.
        unsafe { (self.free_error)(error) };
        text
    }

    fn failed(&self, detail: String) -> BenchError {
        BenchError::Peer { name: self.name.to_owned(), detail }
    }
}

/// Returns a function of the library.
///
/// # Safety
///
/// `F` is the type of the function with this name.
unsafe fn function<F: Copy + 'static>(loaded: &'static Loaded, name: &CStr) -> Result<F, String> {
    // SAFETY: the caller guarantees the type.
    let symbol: Symbol<'static, F> =
        unsafe { loaded.get(name.to_bytes_with_nul()) }.map_err(|error| error.to_string())?;
    Ok(*symbol)
}

/// Compiled literals, and the scratch memory of a scan.
pub struct Database {
    library: &'static Library,
    compiled: *mut c_void,
    /// Null only between its failed allocation and the drop.
    scratch: *mut c_void,
    found: Vec<u32>,
}

impl Database {
    /// Returns the numbers of the literals that occur in `text`, each once, in no particular order.
    ///
    /// # Panics
    ///
    /// If `text` has 4 GiB or more, or if the scan fails, which only incorrect use of the interface can cause.
    pub fn scan(&mut self, text: &[u8]) -> &[u32] {
        self.found.clear();
        if text.is_empty() {
            return &self.found;
        }
        let len = c_uint::try_from(text.len()).expect("payloads are short");
        // SAFETY: database and scratch were made for one another and are used by this thread only, as `self` is
        // borrowed mutably. The text has the length said. `found` outlives the call and is touched by nobody but
        // `on_match` meanwhile.
        let code = unsafe {
            (self.library.scan)(
                self.compiled,
                text.as_ptr().cast(),
                len,
                0,
                self.scratch,
                Some(on_match),
                (&raw mut self.found).cast(),
            )
        };
        assert_eq!(code, SUCCESS, "{} scans", self.library.name);
        &self.found
    }
}

extern "C" fn on_match(
    id: c_uint,
    _from: c_ulonglong,
    _to: c_ulonglong,
    _flags: c_uint,
    found: *mut c_void,
) -> c_int {
    // SAFETY: this is the pointer that `scan` gave, to a vector that nobody else touches during the call.
    let found: &mut Vec<u32> = unsafe { &mut *found.cast() };
    found.push(id);
    0
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: made by this library, freed once; a null scratch is allowed.
        unsafe { (self.library.free_scratch)(self.scratch) };
        // SAFETY: made by this library, freed once, and no scan can follow.
        unsafe { (self.library.free_database)(self.compiled) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Needle, libraries};

    #[test]
    fn literals_are_found_once_each() {
        for library in libraries() {
            let library = match library {
                Ok(library) => library,
                Err(absent) => {
                    eprintln!("skipped: {}: {}", absent.name, absent.reason);
                    continue;
                }
            };
            assert!(library.version().starts_with("5."), "{}", library.version());
            let needles = [("ab", true), ("b\0c", false), ("zz", false)];
            let needles = needles.map(|(text, any_case)| Needle { bytes: text.as_bytes(), any_case });
            let mut database = library.compile(needles.into_iter()).unwrap();
            let rows: [(&[u8], &[u32]); 4] =
                [(b"", &[]), (b"xABab ab", &[0]), (b"aB\0c b\0c", &[0, 1]), (b"ZZ", &[])];
            for (text, expected) in rows {
                let mut found = database.scan(text).to_vec();
                found.sort_unstable();
                assert_eq!(found, expected, "{} {text:?}", library.name());
            }
            assert!(library.compile([Needle { bytes: b"", any_case: false }].into_iter()).is_err());
        }
    }
}
