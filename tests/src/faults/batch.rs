//! Script blocks that match the built-in rule, each with a unique name, and the hits that a store must contain for them.

use super::rng::Rng;
use crate::samples;
use crate::writer::{EventSpec, TraceWriter, script_block};
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Precedes the name of a script in its text.
const MARK: &str = "Enter-PSSession -ComputerName ";
/// The built-in rule.
const RULE_ID: &str = "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af";

/// A script; its event gives one hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Unique name: the name of the batch and a number.
    pub name: String,
    /// The text of the script.
    pub text: String,
    /// The script block id.
    pub id: Uuid,
    /// The process that ran it.
    pub process_id: u32,
}

/// The scripts of one trace.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Unique name.
    pub name: String,
    /// In the order of their events.
    pub scripts: Vec<Script>,
}

impl Batch {
    /// Makes `count` scripts whose lengths in characters are in the range `len`.
    pub fn new(name: &str, count: usize, len: Range<u64>, rng: &mut Rng) -> Self {
        let script = |number| {
            let name = format!("{name}-{number}");
            let mut text = format!("{MARK}{name} # ");
            let len = rng.within(len.clone()) as usize;
            while text.len() < len {
                let _ = write!(text, "{:016x} ", rng.word());
            }
            let id = Uuid::from_u64_pair(rng.word(), rng.word());
            Script { name, text, id, process_id: rng.within(100..60_000) as u32 * 4 }
        };
        Self { name: name.to_owned(), scripts: (0..count).map(script).collect() }
    }

    /// Writes a trace of the scripts to a file in `folder` named after the batch, and returns its path.
    ///
    /// # Errors
    ///
    /// Errors of writing the file.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let mut writer = TraceWriter::new();
        for (ticks, script) in (1u64..).zip(&self.scripts) {
            let payload = script_block(1, 1, &script.text, &script.id.to_string(), None);
            writer.push(EventSpec::powershell(4104, payload).at(ticks * 1000).by(script.process_id, 8));
        }
        let path = folder.join(format!("{}.etl", self.name));
        fs::write(&path, writer.build())?;
        Ok(path)
    }

    /// The hits that a sensor would send for the scripts.
    pub fn hits(&self) -> Vec<HitV1> {
        (1u64..).zip(&self.scripts).map(|(number, script)| script.hit(&self.name, number)).collect()
    }
}

impl Script {
    fn hit(&self, source: &str, number: u64) -> HitV1 {
        let content = EventContent::ScriptBlock {
            message_number: Some(1),
            message_total: Some(1),
            text: Utf16Text::from(self.text.as_str()),
            script_block_id: Some(Utf16Text::from(self.id.to_string().as_str())),
            path: Some(Utf16Text::default()),
        };
        HitV1 {
            source: source.to_owned(),
            process_id: Some(self.process_id),
            thread_id: Some(8),
            rules: vec![RuleRefV1 { id: RULE_ID.to_owned(), ..RuleRefV1::default() }],
            ..samples::hit(number, content)
        }
    }

    /// Whether `hit` is the complete hit of this script.
    pub fn is(&self, hit: &HitV1) -> bool {
        let EventContent::ScriptBlock { text, script_block_id, message_number, .. } = &hit.content else {
            return false;
        };
        text.to_string_lossy() == self.text
            && script_block_id.as_ref().is_some_and(|id| id.to_string_lossy() == self.id.to_string())
            && *message_number == Some(1)
            && hit.event_id == 4104
            && hit.process_id == Some(self.process_id)
            && hit.rules.len() == 1
            && hit.rules[0].id == RULE_ID
    }
}

/// The name of the script in the text of a hit; `None` if the text has no name.
pub fn name_in(hit: &HitV1) -> Option<String> {
    let EventContent::ScriptBlock { text, .. } = &hit.content else { return None };
    let text = text.to_string_lossy();
    Some(text.strip_prefix(MARK)?.split(' ').next()?.to_owned())
}
