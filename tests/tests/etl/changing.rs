//! Traces that change while they are read, and failing disks: both are reported and never end the process.

use super::walk::{BUFFER_LEN, FORMATS, SEQUENCE_NUMBER, Walk, small};
use etwsieve_etl::{Compression, DamageKind, EtlError, ReadAt, Trace, TraceFile};
use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.etl");
    fs::write(&path, bytes).expect("the trace is written");
    (folder, path)
}

/// Truncating a mapped file would end a process that reads it (SIGBUS). The reader continues and reports the missing part.
#[test]
fn a_file_that_is_truncated_while_it_is_read() {
    for format in FORMATS {
        let bytes = small(format).build();
        let whole = Walk::of(&bytes).seen.len();
        for left in [0, 100, bytes.len() / 2, bytes.len() - 10] {
            let (_folder, path) = written(&bytes);
            let file = TraceFile::open(&path).unwrap();
            let trace = file.trace().unwrap();
            let mut events = trace.events();
            let mut seen = 0;
            while let Some(event) = events.next() {
                seen += usize::from(event.event_id.is_some());
                if seen == 1 {
                    File::options().write(true).open(&path).unwrap().set_len(left as u64).unwrap();
                }
            }
            assert!(seen <= whole, "{format:?}, {left} bytes left");
            let changed = events.damage().count(DamageKind::Changed);
            if seen < whole {
                assert!(changed > 0, "{format:?}, {left} bytes left: {seen} of {whole}, and no damage");
            }
            if left < bytes.len() / 2 {
                assert!(seen < whole, "{format:?}: what is gone was not read before");
                let shown = events.damage().kept()[0].to_string();
                assert!(shown.contains("the file changed while it was read"), "{shown}");
            }
        }
    }
}

#[test]
fn a_file_that_is_truncated_before_its_buffers_are_found() {
    for format in FORMATS {
        let bytes = small(format).build();
        let (_folder, path) = written(&bytes);
        let file = TraceFile::open(&path).unwrap();
        let left = bytes.len() as u64 / 2;
        File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        let trace = file.trace().unwrap();
        assert_eq!(trace.damage().count(DamageKind::Changed), 1, "{format:?}: {:?}", trace.damage());
        let mut events = trace.events();
        let mut seen = 0;
        while let Some(event) = events.next() {
            seen += usize::from(event.event_id.is_some());
        }
        assert!((10..45).contains(&seen), "{format:?}: {seen}");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(matches!(file.trace().unwrap_err(), EtlError::HeaderCut { found: 0, .. }));
    }
}

#[test]
fn a_buffer_that_is_overwritten_meanwhile() {
    let bytes = small(None).build();
    let (_folder, path) = written(&bytes);
    let file = TraceFile::open(&path).unwrap();
    let trace = file.trace().unwrap();
    let mut changed = bytes.clone();
    changed[3 * BUFFER_LEN + SEQUENCE_NUMBER] ^= 0x40;
    fs::write(&path, changed).unwrap();
    let mut events = trace.events();
    let mut seen = 0;
    while let Some(event) = events.next() {
        seen += usize::from(event.event_id.is_some());
    }
    assert_eq!(seen, 45, "what is there is read");
    assert_eq!(events.damage().count(DamageKind::Changed), 1);
    assert_eq!(events.damage().kept()[0].offset, 3 * BUFFER_LEN as u64);
}

/// A disk with bad sectors.
#[derive(Debug)]
struct BadDisk {
    bytes: Vec<u8>,
    bad: std::ops::Range<u64>,
    reads: AtomicU64,
}

impl ReadAt for BadDisk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        // Like a disk, it returns the data before the bad sector.
        if self.bad.contains(&offset) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let end = if offset < self.bad.start { self.bad.start } else { self.len() };
        let end = end.min(offset + buffer.len() as u64).min(self.len());
        let bytes = &self.bytes[offset as usize..end as usize];
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn a_bad_sector_costs_only_its_data() {
    let bytes = small(None).build();
    let bad = (4 * BUFFER_LEN + 200) as u64..(4 * BUFFER_LEN + 300) as u64;
    let disk = BadDisk { bytes, bad: bad.clone(), reads: AtomicU64::new(0) };
    let trace = Trace::read(&disk, &|| false).unwrap();
    let mut events = trace.events();
    let mut seen = 0;
    while let Some(event) = events.next() {
        seen += usize::from(event.event_id.is_some());
    }
    assert!((5..45).contains(&seen), "{seen}");
    assert!(events.damage().count(DamageKind::ReadError) > 0, "{:?}", events.damage());
    assert!(
        events.damage().kept()[0].to_string().contains("the system cannot read"),
        "{:?}",
        events.damage()
    );

    let disk =
        BadDisk { bytes: small(Some(Compression::Xpress)).build(), bad: 0..8, reads: AtomicU64::new(0) };
    let error = Trace::read(&disk, &|| false).unwrap_err();
    assert!(matches!(error, EtlError::Header(_)), "{error}");
}

/// Reading a header or a buffer takes only a few calls.
#[test]
fn a_file_is_read_in_few_calls() {
    for format in FORMATS {
        let disk = BadDisk { bytes: small(format).build(), bad: 0..0, reads: AtomicU64::new(0) };
        let trace = Trace::read(&disk, &|| false).unwrap();
        let mut events = trace.events();
        while events.next().is_some() {}
        let (reads, buffers) = (disk.reads.load(Ordering::Relaxed), trace.info().buffers_found);
        assert!(reads <= 4 * buffers + 8, "{format:?}: {reads} reads for {buffers} buffers");
    }
}
