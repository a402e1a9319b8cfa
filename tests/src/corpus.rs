//! Access to the corpus: recordings, traces, rules and expected verdicts that are beside the repository, not in it.
//!
//! Without that folder tests report that they are skipped, and pass. With it nothing is skipped.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Window of the zstd files, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The root of the repository.
///
/// # Panics
///
/// Never: the crate is in a folder of the repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the tests are in a folder of the repository").to_owned()
}

/// The corpus, `../shared/data` beside the repository; `None`, with a message on standard error, if it does not exist.
pub fn data() -> Option<PathBuf> {
    let found = folder();
    if found.is_none() {
        eprintln!("skipped: ../shared/data does not exist");
    }
    found
}

/// The same as [`data`] without a message.
pub(crate) fn folder() -> Option<PathBuf> {
    Some(repository().parent()?.join("shared/data")).filter(|path| path.is_dir())
}

/// Path of an unpacked trace of `data/traces`, such as `seed.etl` or `bench-busy.etl`. Unpacks it once.
///
/// # Panics
///
/// If the trace does not exist or cannot be unpacked: a corpus without it is broken.
pub fn trace(data: &Path, name: &str) -> PathBuf {
    let plain = data.join("traces").join(name);
    if plain.exists() {
        return plain;
    }
    let folder = std::env::temp_dir().join("etwsieve-corpus");
    let unpacked = folder.join(name);
    let packed = data.join("traces").join(format!("{name}.zst"));
    let newer = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if unpacked.exists() && newer(&unpacked) >= newer(&packed) {
        return unpacked;
    }
    let unpack = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        // Several tests may unpack at once: each writes its own file, and the last rename wins.
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        io::copy(&mut zstd_reader(&packed)?, &mut file)?;
        file.persist(&unpacked)?;
        Ok(())
    };
    unpack().unwrap_or_else(|error| panic!("{} unpacks: {error}", packed.display()));
    unpacked
}

/// Reads a `.zst` file.
///
/// # Errors
///
/// Errors of opening the file.
pub fn zstd_reader(path: &Path) -> io::Result<impl io::Read + use<>> {
    let mut decoder = zstd::Decoder::new(File::open(path)?)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(BufReader::new(decoder))
}

/// Returns the rows of a CSV file with these columns, in this order.
///
/// # Panics
///
/// If the file or a column does not exist.
pub fn csv_rows(path: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let headers = reader.headers().expect("a CSV file has headers").clone();
    let places: Vec<usize> = columns
        .iter()
        .map(|column| {
            headers.iter().position(|h| h == *column).unwrap_or_else(|| panic!("no column {column}"))
        })
        .collect();
    let row = |record: csv::StringRecord| places.iter().map(|&place| record[place].to_owned()).collect();
    reader.records().map(|record| row(record.expect("the CSV file is well-formed"))).collect()
}

/// Paths of these folders in `data/rules`.
pub fn rules(data: &Path, folders: &[&str]) -> Vec<PathBuf> {
    folders.iter().map(|folder| data.join("rules").join(folder)).collect()
}
