//! The commands that need Windows, on Windows.

#[path = "service.rs"]
mod service_command;

pub(in crate::cli) use service_command::run as service;

use super::{Config, DoctorArgs, Exit, Format, RecordArgs, Terminal, WatchArgs, complain};
use crate::cli::files::{prepare_summary, write_summary};
use crate::cli::rules;
use crate::cli::{RuleArgs, after_writing, stop_on_signal};
use crate::live::report::line;
use crate::live::rule_folder::RuleFolder;
use crate::live::settings::SessionSettings;
use crate::stop::Stop;
use crate::sys::windows::doctor::{self, Status};
use crate::sys::windows::policy::Edition;
use crate::sys::windows::recorder::{Recording, record as run_recording};
use crate::sys::windows::{canary, live};
use etwsieve_transport::printable::{self, Printable};
use std::io::{self, Write};
use std::time::Duration;

pub(in crate::cli) fn watch(args: &WatchArgs, config: Config, format: Format) -> Exit {
    let rule_args = RuleArgs { rules: config.rules.clone(), allow_bad_rules: config.allow_bad_rules };
    let folder = RuleFolder::new(config.rules.clone());
    let matcher = match rules::load(&rule_args) {
        Ok(matcher) => matcher,
        Err(exit) => return exit,
    };
    let report = match prepare_summary(args.summary.as_deref()) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    let stop = Stop::default();
    stop_on_signal(&stop);
    let summary = match live::run(config, format, matcher, folder, stop.clone()) {
        Ok(summary) => summary,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    anstream::eprintln!("{}", line(&summary.run.total, &summary.etw));
    if let Some(report) = report
        && let Err(exit) = write_summary(report, &summary, &stop)
    {
        return exit;
    }
    // Ctrl-C is how a watch ends.
    Exit::Complete
}

pub(in crate::cli) fn record(args: &RecordArgs, _terminal: &Terminal) -> Exit {
    let stop = Stop::default();
    stop_on_signal(&stop);
    let settings =
        SessionSettings { name: args.session.clone(), amsi: args.amsi, ..SessionSettings::default() };
    if let Err(error) = settings.validate() {
        complain(error);
        return Exit::Usage;
    }
    let recording = Recording {
        settings: &settings,
        path: &args.path,
        size_max_mb: args.size_max,
        time_max: args.seconds.map(Duration::from_secs),
    };
    let bar = indicatif::ProgressBar::new_spinner();
    let result = run_recording(&recording, &stop, |state, len| {
        bar.set_message(format!("{} bytes, {} events lost", len, state.losses.events));
        bar.tick();
    });
    bar.finish_and_clear();
    match result {
        Ok(recorded) => {
            let losses = recorded.state.losses;
            anstream::eprintln!(
                "recorded {} bytes in {:.1} s to {}; lost: {} events, {} buffers",
                recorded.len,
                recorded.time.as_secs_f64(),
                printable::path(&args.path),
                losses.events,
                losses.log_buffers,
            );
            if losses.is_lossless() { Exit::Complete } else { Exit::Damaged }
        }
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}

pub(in crate::cli) fn doctor(args: &DoctorArgs, _terminal: &Terminal) -> Exit {
    let mut findings = doctor::examine(&args.session);
    if args.canary {
        let editions = [Edition::WindowsPowerShell, Edition::PowerShell7];
        for edition in editions.into_iter().filter(|edition| canary::program(*edition).is_some()) {
            findings.push(doctor::canary(edition));
        }
    }
    let mut out = anstream::AutoStream::auto(io::stdout());
    let written = findings.iter().try_for_each(|finding| {
        let mark = match finding.status {
            Status::Good => "\x1b[32m ok \x1b[0m",
            Status::Warning => "\x1b[33mwarn\x1b[0m",
            Status::Bad => "\x1b[31mBAD \x1b[0m",
        };
        writeln!(out, "{mark} {}: {}", Printable(&finding.subject), Printable(&finding.text))
    });
    let worst = findings.iter().map(|finding| finding.status).max();
    let exit = if worst == Some(Status::Bad) { Exit::Damaged } else { Exit::Complete };
    after_writing(written, exit)
}
