//! Sorts hits by time, then source, then position in the source (external merge sort).
//!
//! Hits arrive from several threads. They are kept in memory up to [`HELD_BYTES_MAX`]. Beyond that they are sorted and
//! written to a temporary file, a run, and all runs are merged at the end. The output is therefore the same for every
//! replay, and memory is bounded. Every [`RUNS_MAX`] runs are merged into one, so that the number of open files is
//! bounded too.

use etwsieve_transport::{
    hit::{EventContent, HitV1, RuleRefV1},
    private_file,
    wire::codec,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

/// Maximum memory of hits in bytes, as estimated by [`estimated_bytes`].
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// Maximum number of runs per level. A full level is merged into one run of the next level, so each hit is written once
/// per level, and only a few dozen files are open.
const RUNS_MAX: usize = 32;

/// Sort key of hits: time, source, number within the source.
type Key = (u64, u32, u64);

/// Takes hits in any order and returns them sorted.
#[derive(Debug)]
pub struct Sorter {
    held: Vec<(Key, HitV1)>,
    held_bytes: usize,
    held_bytes_max: usize,
    /// Runs by level. Runs of higher levels are older, and within a level the first ones.
    levels: Vec<Vec<File>>,
}

impl Default for Sorter {
    fn default() -> Self {
        Self::with_limit(HELD_BYTES_MAX)
    }
}

impl Sorter {
    fn with_limit(held_bytes_max: usize) -> Self {
        Self { held: Vec::new(), held_bytes: 0, held_bytes_max, levels: Vec::new() }
    }

    /// Adds a hit of the source with this index.
    ///
    /// # Errors
    ///
    /// The error of the system if the temporary file cannot be written; the hits then stay in memory.
    pub fn push(&mut self, source: u32, hit: HitV1) -> io::Result<()> {
        self.held_bytes += estimated_bytes(&hit);
        self.held.push(((hit.time, source, hit.source_sequence), hit));
        if self.held_bytes > self.held_bytes_max { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.held.sort_by_key(|(key, _)| *key);
        let mut run = BufWriter::new(temporary()?);
        for (key, hit) in &self.held {
            let bytes = codec::encode_hit(hit).map_err(io::Error::other)?;
            write(*key, &bytes, &mut run)?;
        }
        self.add_run(rewound(run)?)?;
        self.held.clear();
        self.held_bytes = 0;
        Ok(())
    }

    /// Adds the newest run, and merges full levels.
    fn add_run(&mut self, mut run: File) -> io::Result<()> {
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let runs = &mut self.levels[level];
            runs.push(run);
            if runs.len() < RUNS_MAX {
                break;
            }
            let mut merged = BufWriter::new(temporary()?);
            let readers = std::mem::take(runs).into_iter().map(BufReader::new).collect();
            merge(readers, read, |key, bytes| write(key, &bytes, &mut merged))?;
            run = rewound(merged)?;
        }
        Ok(())
    }

    /// Calls `each` for every hit in order, with the index of its source.
    ///
    /// # Errors
    ///
    /// The first error of `each`, or of reading the temporary files.
    pub fn drain(mut self, mut each: impl FnMut(u32, HitV1) -> io::Result<()>) -> io::Result<()> {
        self.held.sort_by_key(|(key, _)| *key);
        // From the oldest run to the newest, so that hits of one event stay in the order of their arrival.
        let files = self.levels.into_iter().rev().flatten();
        let mut runs: Vec<Run> = files.map(|file| Run::File(BufReader::new(file))).collect();
        runs.push(Run::Held(self.held.into_iter()));
        merge(runs, Run::next, |(_, source, _), hit| each(source, hit))
    }
}

/// Calls `each` for the items of sorted `runs` in order. Items with equal keys are ordered by their run.
fn merge<R, T>(
    mut runs: Vec<R>,
    read: impl Fn(&mut R) -> io::Result<Option<(Key, T)>>,
    mut each: impl FnMut(Key, T) -> io::Result<()>,
) -> io::Result<()> {
    let mut next: Vec<Option<T>> = Vec::with_capacity(runs.len());
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (at, run) in runs.iter_mut().enumerate() {
        let head = read(run)?;
        heads.extend(head.as_ref().map(|(key, _)| Reverse((*key, at))));
        next.push(head.map(|(_, item)| item));
    }
    while let Some(Reverse((key, at))) = heads.pop() {
        let head = read(&mut runs[at])?;
        heads.extend(head.as_ref().map(|(key, _)| Reverse((*key, at))));
        let item = std::mem::replace(&mut next[at], head.map(|(_, item)| item));
        if let Some(item) = item {
            each(key, item)?;
        }
    }
    Ok(())
}

/// Creates a temporary file that only its owner can read, because it contains scripts.
fn temporary() -> io::Result<File> {
    let file = tempfile::tempfile()?;
    private_file::restrict(&file)?;
    Ok(file)
}

/// Appends an encoded hit to a run.
fn write((time, source, sequence): Key, bytes: &[u8], run: &mut impl Write) -> io::Result<()> {
    run.write_all(&time.to_le_bytes())?;
    run.write_all(&source.to_le_bytes())?;
    run.write_all(&sequence.to_le_bytes())?;
    run.write_all(&(bytes.len() as u32).to_le_bytes())?;
    run.write_all(bytes)
}

/// Reads the next encoded hit of a run; `None` at its end.
fn read(run: &mut BufReader<File>) -> io::Result<Option<(Key, Vec<u8>)>> {
    let mut head = [0; 24];
    match run.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let number =
        |at: usize, len: usize| head[at..at + len].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let key = (number(0, 8), number(8, 4) as u32, number(12, 8));
    // This process wrote the file, so the length is within the limit of the encoder.
    let mut bytes = vec![0; number(20, 4) as usize];
    run.read_exact(&mut bytes)?;
    Ok(Some((key, bytes)))
}

/// Returns the file of a run, positioned at its start.
fn rewound(run: BufWriter<File>) -> io::Result<File> {
    let mut file = run.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// A sorted sequence of hits.
enum Run {
    Held(std::vec::IntoIter<(Key, HitV1)>),
    File(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<(Key, HitV1)>> {
        match self {
            Self::Held(hits) => Ok(hits.next()),
            Self::File(file) => {
                let Some((key, bytes)) = read(file)? else { return Ok(None) };
                Ok(Some((key, codec::decode_hit(&bytes).map_err(io::Error::other)?)))
            }
        }
    }
}

/// Estimates the memory of a hit in bytes: its texts and rules, and a constant for the rest.
fn estimated_bytes(hit: &HitV1) -> usize {
    let text = match &hit.content {
        EventContent::ScriptBlock { text, .. } | EventContent::Amsi { text, .. } => text.0.len(),
        EventContent::Module { context_info, user_data, payload } => {
            context_info.0.len() + user_data.0.len() + payload.0.len()
        }
        EventContent::Notice { detail } => detail.len(),
    };
    let rule = |rule: &RuleRefV1| {
        let words = rule.id.len() + rule.title.len() + rule.level.len();
        let attack: usize = rule.attack.iter().map(|id| size_of::<String>() + id.len()).sum();
        let places = size_of_val(&rule.spans[..]) + size_of_val(&rule.transformations[..]);
        size_of::<RuleRefV1>() + words + attack + places
    };
    1024 + 2 * text + hit.rules.iter().map(rule).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{RUNS_MAX, Sorter};
    use etwsieve_transport::hit::{EventContent, HitV1, Utf16Text};

    fn hit(time: u64, source_sequence: u64) -> HitV1 {
        HitV1 {
            time,
            source: "s".into(),
            source_sequence,
            process_id: Some(1),
            content: EventContent::ScriptBlock {
                message_number: Some(1),
                message_total: Some(1),
                text: Utf16Text(vec![0xD800; 10]),
                script_block_id: None,
                path: None,
            },
            ..HitV1::default()
        }
    }

    #[test]
    fn order_does_not_depend_on_arrival_or_temporary_files() {
        let mut all: Vec<(u32, HitV1)> =
            (0..200u64).map(|n| ((n % 3) as u32, hit(n * 7919 % 50, n))).collect();
        let mut expected = all.clone();
        expected.sort_by_key(|(source, hit)| (hit.time, *source, hit.source_sequence));
        for limit in [usize::MAX, 20_000, 1] {
            all.rotate_left(77);
            let mut sorter = Sorter::with_limit(limit);
            for (source, hit) in all.clone() {
                sorter.push(source, hit).unwrap();
            }
            assert_eq!(sorter.levels.is_empty(), limit == usize::MAX);
            let files = sorter.levels.iter().map(Vec::len).sum::<usize>();
            assert!(files < 2 * RUNS_MAX, "{files} files open");
            #[cfg(unix)]
            for run in sorter.levels.iter().flatten() {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
            let mut got = Vec::new();
            sorter
                .drain(|source, hit| {
                    got.push((source, hit));
                    Ok(())
                })
                .unwrap();
            assert_eq!(got, expected, "{limit}");
        }
    }
}
