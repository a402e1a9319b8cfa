//! The files that a command reads and writes. No output may overwrite an input, another output, or a file that etwsieve
//! did not write.

use super::{Exit, usage_error};
use crate::delivery::CollectorSettings;
use crate::input::expand;
use crate::rules::ENDINGS;
use crate::stop::Stop;
use etwsieve_transport::files::{Claims, Report};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// First bytes of a file that `--summary` has written.
const SUMMARY_HEAD: &[u8] = b"{\n  \"events_seen\":";

/// The files of a command that searches events.
#[derive(Default)]
pub(super) struct Files<'a> {
    /// Input files; folders have been searched already.
    pub(super) inputs: &'a [PathBuf],
    /// Paths of the rules.
    pub(super) rules: &'a [PathBuf],
    /// The configuration file.
    pub(super) config: Option<&'a Path>,
    /// The file to which hits are appended.
    pub(super) output: Option<&'a Path>,
    /// The database of hits.
    pub(super) store: Option<&'a Path>,
    /// Settings of the collector, which name the bundle.
    pub(super) collector: Option<&'a CollectorSettings>,
    /// The spool file, if hits are sent.
    pub(super) spool: Option<&'a Path>,
    /// The file of the summary.
    pub(super) summary: Option<&'a Path>,
}

impl Files<'_> {
    /// Reports an error if an output is also an input or another output.
    pub(super) fn check(&self) -> Result<(), Exit> {
        let mut claims = Claims::default();
        let (rules, _) = expand(self.rules, &ENDINGS);
        let bundle = self.collector.and_then(|settings| settings.bundle.as_deref());
        let inputs = self.inputs.iter().chain(&rules).map(PathBuf::as_path);
        inputs.chain(self.config).chain(bundle).for_each(|path| claims.input(path));
        let result = (|| {
            claims.stdout()?;
            if let Some(path) = self.output {
                claims.output("--output", path)?;
            }
            if let Some(path) = self.store {
                claims.database("--store", path)?;
            }
            if let Some(path) = self.spool {
                claims.database("--spool", path)?;
            }
            self.summary.map_or(Ok(()), |path| claims.output("--summary", path))
        })();
        result.map_err(usage_error)
    }
}

/// Checks before the run whether the summary can be written to `path`.
pub(super) fn prepare_summary(path: Option<&Path>) -> Result<Option<Report>, Exit> {
    let prepare =
        |path| Report::prepare(path, "a summary of etwsieve", |head| head.starts_with(SUMMARY_HEAD));
    path.map(prepare).transpose().map_err(|error| usage_error(format_args!("--summary: {error}")))
}

/// Writes a summary to the file that [`prepare_summary`] has checked.
pub(super) fn write_summary(report: Report, summary: &impl Serialize, stop: &Stop) -> Result<(), Exit> {
    let text = serde_json::to_string_pretty(summary).map_err(|error| error.to_string());
    let written = text.and_then(|mut text| {
        text.push('\n');
        report.write(text.as_bytes(), stop).map_err(|error| error.to_string())
    });
    written.map_err(|error| {
        let exit = usage_error(format_args!("--summary: {error}"));
        if stop.requested() { Exit::Interrupted } else { exit }
    })
}

#[cfg(test)]
mod tests {
    use super::SUMMARY_HEAD;
    use crate::ledger::Summary;

    #[test]
    fn a_summary_starts_with_the_head_that_identifies_it() {
        let text = serde_json::to_string_pretty(&Summary::default()).expect("a summary is JSON");
        assert!(text.as_bytes().starts_with(SUMMARY_HEAD), "{text}");
    }
}
