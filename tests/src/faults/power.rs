//! Simulates a power loss in the folder of a program that was killed.
//!
//! The fault shim has recorded what is durable. Everything written since may be lost: for each sector of 512 bytes a random
//! choice decides whether it keeps the new bytes, the old bytes, zeros or garbage. Bytes that were not written do not
//! change, as SQLite assumes (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).

use super::rng::Rng;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SECTOR_LEN: usize = 512;

/// The effect of a power loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Number of files that changed.
    pub files: u64,
    /// Number of bytes that changed.
    pub bytes: u64,
}

/// The fate of bytes that were written and not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Written,
    Zeroed,
    Garbled,
}

/// Changes the files in `folder` as a power loss may, and makes the result durable in `image`, the folder of the shim. No
/// program may have the files open.
///
/// # Errors
///
/// Errors of the file system; `InvalidData` if the journal of names is invalid.
pub fn lose_power(folder: &Path, image: &Path, rng: &mut Rng) -> io::Result<Loss> {
    let durable_folder = image.join("files");
    fs::create_dir_all(&durable_folder)?;
    apply_some_names(image, rng)?;
    let mut names = BTreeSet::new();
    list(folder, Path::new(""), &mut names)?;
    list(&durable_folder, Path::new(""), &mut names)?;
    let mut loss = Loss::default();
    for name in names {
        let (live, durable) = (read(&folder.join(&name))?, read(&durable_folder.join(&name))?);
        let is_shared_memory = name.to_string_lossy().ends_with("-shm");
        let left = if is_shared_memory { None } else { left(live.as_deref(), durable.as_deref(), rng) };
        if !is_shared_memory && left != live {
            loss.files += 1;
            loss.bytes += difference(live.as_deref(), left.as_deref());
        }
        for place in [folder.join(&name), durable_folder.join(&name)] {
            put(&place, left.as_deref())?;
        }
    }
    Ok(loss)
}

/// Makes all files in `folder` durable, for a program whose folder was filled by another one.
///
/// # Errors
///
/// Errors of the file system.
pub fn take_as_durable(folder: &Path, image: &Path) -> io::Result<()> {
    let mut names = BTreeSet::new();
    list(folder, Path::new(""), &mut names)?;
    for name in names {
        put(&image.join("files").join(&name), read(&folder.join(&name))?.as_deref())?;
    }
    Ok(())
}

/// Returns the bytes of a file after the loss; `None` if it no longer exists.
fn left(live: Option<&[u8]>, durable: Option<&[u8]>, rng: &mut Rng) -> Option<Vec<u8>> {
    let Some(live) = live else { return durable.map(<[u8]>::to_vec) };
    if durable.is_none() && rng.chance(50) {
        return None;
    }
    let durable = durable.unwrap_or_default();
    let (shorter, longer) = (live.len().min(durable.len()) as u64, live.len().max(durable.len()) as u64);
    let len = match rng.within(0..3) {
        0 => durable.len(),
        1 => live.len(),
        _ => rng.within(shorter..longer + 1) as usize,
    };
    let mut left = durable.to_vec();
    left.resize(len, 0);
    let of_all = match rng.within(0..4) {
        0 => Some(Fate::Lost),
        1 => Some(Fate::Written),
        _ => None,
    };
    for (number, sector) in left.chunks_mut(SECTOR_LEN).enumerate() {
        let start = number * SECTOR_LEN;
        let was = |index: usize| durable.get(start + index);
        let fate = of_all.unwrap_or_else(|| match rng.within(0..4) {
            0 => Fate::Lost,
            1 => Fate::Written,
            2 => Fate::Zeroed,
            _ => Fate::Garbled,
        });
        for (index, byte) in sector.iter_mut().enumerate() {
            let Some(&new) = live.get(start + index).filter(|new| was(index) != Some(new)) else { continue };
            match fate {
                Fate::Lost => {}
                Fate::Written => *byte = new,
                Fate::Zeroed => *byte = 0,
                Fate::Garbled => *byte = rng.word() as u8,
            }
        }
    }
    Some(left)
}

/// Applies a random number of the first renames and removals since the last sync.
fn apply_some_names(image: &Path, rng: &mut Rng) -> io::Result<()> {
    let journal = image.join("names");
    let Some(records) = read(&journal)? else { return Ok(()) };
    let records =
        String::from_utf8(records).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let count = rng.within(0..records.lines().count() as u64 + 1) as usize;
    for record in records.lines().take(count) {
        let (from, to) = record.split_once('\0').ok_or(io::ErrorKind::InvalidData)?;
        let from = image.join("files").join(from);
        // A file that was never synced has no durable name yet.
        if !from.exists() {
            continue;
        }
        if to.is_empty() {
            fs::remove_file(from)?;
        } else {
            fs::rename(from, image.join("files").join(to))?;
        }
    }
    fs::remove_file(journal)
}

fn difference(one: Option<&[u8]>, other: Option<&[u8]>) -> u64 {
    let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
    let common = one.iter().zip(other).filter(|(one, other)| one != other).count();
    (common + one.len().abs_diff(other.len())) as u64
}

fn list(folder: &Path, below: &Path, names: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(folder, &name, names)?;
        } else if kind.is_file() {
            names.insert(name);
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn put(path: &Path, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(bytes) = bytes else {
        return fs::remove_file(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::{Rng, left, lose_power};
    use std::fs;

    #[test]
    fn what_was_synced_stays_and_what_was_not_differs() {
        let durable = vec![7; 5000];
        let mut live = durable.clone();
        live[1000..1100].fill(8);
        live.extend([9; 3000]);
        let mut seen = [false; 3];
        for seed in 0..50 {
            let left = left(Some(&live), Some(&durable), &mut Rng::new(seed)).expect("a synced file stays");
            assert!(left[..1000].iter().chain(&left[1100..5000]).all(|byte| *byte == 7), "seed {seed}");
            seen[0] |= left == live;
            seen[1] |= left == durable;
            seen[2] |= left != live && left != durable;
        }
        assert_eq!(seen, [true; 3], "all written, all lost, and torn");
    }

    #[test]
    fn a_removal_that_was_not_synced_may_not_have_happened() {
        let mut seen = [false; 2];
        for seed in 0..20 {
            let place = tempfile::tempdir().expect("a folder");
            let (folder, image) = (place.path().join("folder"), place.path().join("image"));
            fs::create_dir_all(&folder).expect("a folder");
            fs::create_dir_all(image.join("files")).expect("a folder");
            fs::write(image.join("files/old"), "old").expect("a file");
            fs::write(image.join("names"), "old\0\n").expect("a file");
            lose_power(&folder, &image, &mut Rng::new(seed)).expect("the loss is played");
            seen[usize::from(folder.join("old").exists())] = true;
        }
        assert_eq!(seen, [true; 2]);
    }
}
