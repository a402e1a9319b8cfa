//! Writes an event log (.evtx) of events of the antimalware scanner, with templates and typed values as on Windows.
//!
//! The log has one chunk and no checksums. The layout follows MS-EVEN6 2.2.12 and the headers of the file.

use super::{AmsiScan, EventSpec};
use etwsieve_etl::FileTime;
use std::fmt::Write as _;

const CHUNK_LEN: usize = 65_536;
const CHUNK_HEADER_LEN: usize = 512;
const FILE_HEADER_LEN: usize = 4096;

/// Types of values.
const TEXT: u8 = 0x01;
const U8: u8 = 0x04;
const U16: u8 = 0x06;
const U32: u8 = 0x08;
const U64: u8 = 0x0A;
const BOOL: u8 = 0x0D;
const BINARY: u8 = 0x0E;
const FILETIME: u8 = 0x11;
const HEX64: u8 = 0x15;

/// A value of a record.
type Value = (u8, Vec<u8>);

/// The representation of scanned content in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// As bytes.
    Binary,
    /// As hexadecimal digits, as in events that were converted to XML and back.
    Digits,
}

/// Returns a log of these scans with the headers and times of the events.
///
/// # Panics
///
/// If they do not fit into a chunk.
pub fn event_log(events: &[(EventSpec, FileTime, AmsiScan)], content: Content) -> Vec<u8> {
    let mut chunk = Chunk(vec![0; CHUNK_HEADER_LEN]);
    for (number, (spec, time, scan)) in (1u64..).zip(events) {
        chunk.record(number, spec, *time, scan, content);
    }
    let mut chunk = chunk.0;
    assert!(chunk.len() <= CHUNK_LEN, "{} bytes in one chunk", chunk.len());
    let free = (chunk.len() as u32).to_le_bytes();
    chunk[..8].copy_from_slice(b"ElfChnk\0");
    chunk[48..52].copy_from_slice(&free);
    chunk.resize(CHUNK_LEN, 0);
    let mut file = vec![0; FILE_HEADER_LEN];
    file[..8].copy_from_slice(b"ElfFile\0");
    [file, chunk].concat()
}

struct Chunk(Vec<u8>);

impl Chunk {
    fn record(&mut self, number: u64, spec: &EventSpec, time: FileTime, scan: &AmsiScan, content: Content) {
        let start = self.0.len();
        self.put(b"**\0\0\0\0\0\0").put(&number.to_le_bytes()).put(&time.0.to_le_bytes());
        let id = number.to_le_bytes().to_vec();
        let system: [(&str, Value); 8] = [
            ("EventID", (U16, spec.event_id.to_le_bytes().to_vec())),
            ("Version", (U8, vec![spec.version as u8])),
            ("Level", (U8, vec![spec.level])),
            ("Task", (U16, spec.task.to_le_bytes().to_vec())),
            ("Opcode", (U8, vec![spec.opcode])),
            ("Keywords", (HEX64, spec.keywords.to_le_bytes().to_vec())),
            ("EventRecordID", (U64, id)),
            ("Channel", (TEXT, wide("AMSI/Debug"))),
        ];
        let facts: [(&str, &str, Value); 3] = [
            ("TimeCreated", "SystemTime", (FILETIME, time.0.to_le_bytes().to_vec())),
            ("Execution", "ProcessID", (U32, spec.process_id.to_le_bytes().to_vec())),
            ("Execution", "ThreadID", (U32, spec.thread_id.to_le_bytes().to_vec())),
        ];
        let bytes: Vec<u8> = scan.content.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let size = (U32, (bytes.len() as u32).to_le_bytes().to_vec());
        let shown = match content {
            Content::Binary => (BINARY, bytes),
            Content::Digits => (TEXT, wide(&digits(&bytes))),
        };
        let data: [(&str, Value); 10] = [
            ("session", (HEX64, 0x329_u64.to_le_bytes().to_vec())),
            ("scanStatus", (U8, vec![0])),
            ("scanResult", (U32, scan.result.to_le_bytes().to_vec())),
            ("appname", (TEXT, wide(&scan.app_name))),
            ("contentname", (TEXT, wide(&scan.content_name))),
            ("contentsize", size.clone()),
            ("originalsize", size),
            ("content", shown),
            ("hash", (BINARY, vec![0x5A; 32])),
            ("contentFiltered", (BOOL, vec![0; 4])),
        ];
        self.instance(&system, &facts, &data);
        let size = (self.0.len() - start + 4) as u32;
        self.put(&size.to_le_bytes());
        self.0[start + 4..start + 8].copy_from_slice(&size.to_le_bytes());
    }

    /// Writes a template with its definition and its values.
    fn instance(&mut self, system: &[(&str, Value)], facts: &[(&str, &str, Value)], data: &[(&str, Value)]) {
        self.put(&[0x0F, 1, 1, 0, 0x0C, 1, 0, 0, 0, 0]);
        let definition = self.0.len() + 4;
        self.put(&(definition as u32).to_le_bytes()).put(&[0; 4 + 16 + 4]);
        let body = self.0.len();
        let mut values: Vec<&Value> = Vec::new();
        self.put(&[0x0F, 1, 1, 0]).open("Event").put(&[0x02]).open("System").put(&[0x02]);
        self.open("Provider").attribute("Name").text("Microsoft-Antimalware-Scan-Interface");
        self.attribute("Guid").text("{2A576B87-09A7-520E-C21A-4942F0271D67}").put(&[0x03]);
        for (name, value) in system {
            self.open(name).put(&[0x02]).substitution(values.len(), value.0).put(&[0x04]);
            values.push(value);
        }
        for (name, attribute, value) in facts {
            self.open(name).attribute(attribute).substitution(values.len(), value.0).put(&[0x03]);
            values.push(value);
        }
        self.put(&[0x04]).open("EventData").put(&[0x02]);
        for (name, value) in data {
            self.open("Data").attribute("Name").text(name).put(&[0x02]);
            self.substitution(values.len(), value.0).put(&[0x04]);
            values.push(value);
        }
        self.put(&[0x04, 0x04, 0]);
        let len = (self.0.len() - body) as u32;
        self.0[body - 4..body].copy_from_slice(&len.to_le_bytes());
        self.put(&(values.len() as u32).to_le_bytes());
        for (kind, bytes) in &values {
            let [low, high] = (bytes.len() as u16).to_le_bytes();
            self.put(&[low, high, *kind, 0]);
        }
        for (_, bytes) in values {
            self.put(bytes);
        }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes an element that does not depend on a value.
    fn open(&mut self, name: &str) -> &mut Self {
        self.put(&[0x41, 0xFF, 0xFF, 0, 0, 0, 0]).name(name).put(&[0; 4])
    }

    fn attribute(&mut self, name: &str) -> &mut Self {
        self.put(&[0x06]).name(name)
    }

    fn name(&mut self, name: &str) -> &mut Self {
        let at = (self.0.len() as u32 + 4).to_le_bytes();
        let len = (name.len() as u16).to_le_bytes();
        self.put(&at).put(&[0; 6]).put(&len).put(&wide(name)).put(&[0, 0])
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let text = wide(text);
        let len = (text.len() as u16 / 2).to_le_bytes();
        self.put(&[0x05, TEXT]).put(&len).put(&text)
    }

    fn substitution(&mut self, number: usize, kind: u8) -> &mut Self {
        let number = (number as u16).to_le_bytes();
        self.put(&[0x0D]).put(&number).put(&[kind])
    }
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Returns two hexadecimal digits per byte, as the event log shows binary data.
fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
