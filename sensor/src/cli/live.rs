//! The commands that need Windows: `watch`, `record`, `doctor`, `service`. Here they meet their arguments; what
//! they do is in `sys/windows`.

use super::files::Files;
use super::terminal::Terminal;
use super::{DoctorArgs, Exit, RecordArgs, WatchArgs, complain};
use crate::delivery::Role;
use crate::live::config::Config;
use crate::output::Format;
use std::path::Path;

/// The configuration of a command: the file that it names, or the one at the usual place if there is one, or the
/// defaults; then what the command line says.
pub(super) fn config(file: Option<&Path>) -> Result<Config, Exit> {
    let usual = Path::new(crate::live::config::DEFAULT_PATH);
    let path = file.or_else(|| usual.is_file().then_some(usual));
    let Some(path) = path else { return Ok(Config::default()) };
    if file.is_none() {
        trusted(path)?;
    }
    Config::load(path).map_err(|error| {
        complain(error);
        Exit::Usage
    })
}

/// A file that nobody named is used only if ordinary accounts could not have written it.
#[cfg(windows)]
fn trusted(path: &Path) -> Result<(), Exit> {
    let exposures = etwsieve_host::exposure::exposures(path).unwrap_or_default();
    let Some(exposure) = exposures.first() else { return Ok(()) };
    complain(format_args!(
        "{} is not used: {} may change {}. Let only administrators write there, or name a file with --config",
        path.display(),
        exposure.group,
        exposure.path.display()
    ));
    Err(Exit::Usage)
}

#[cfg(not(windows))]
#[expect(clippy::unnecessary_wraps, reason = "it refuses on Windows")]
fn trusted(_path: &Path) -> Result<(), Exit> {
    Ok(())
}

/// The configuration of `watch`, and the format of its output.
pub(super) fn watch_config(args: &WatchArgs) -> Result<(Config, Format), Exit> {
    let mut config = config(args.config.as_deref())?;
    if !args.rules.rules.is_empty() {
        config.rules.clone_from(&args.rules.rules);
    }
    config.allow_bad_rules |= args.rules.allow_bad_rules;
    if !args.scope.is_empty() {
        config.search.scopes.clone_from(&args.scope);
    }
    if !args.view.is_empty() {
        config.search.views.clone_from(&args.view);
    }
    if let Some(name) = &args.session {
        config.session.name.clone_from(name);
    }
    config.session.amsi |= args.amsi;
    if let Some(threads) = args.threads {
        config.pipeline.threads = threads.into();
    }
    if args.output.is_some() {
        config.output.file.clone_from(&args.output);
    }
    if args.store.is_some() {
        config.output.store.clone_from(&args.store);
    }
    args.collector.apply(&mut config.collector);
    if args.metrics.is_some() {
        config.metrics.listen = args.metrics;
    }
    // What came from the file was checked; the command line may say the same things wrong.
    if let Err(error) = config.validate() {
        complain(error);
        return Err(Exit::Usage);
    }
    let spool = config.collector.is_set().then(|| {
        config.collector.spool_path(Role::Watch, config.output.store.as_deref()).unwrap_or_default()
    });
    Files {
        rules: &config.rules,
        config: args.config.as_deref(),
        output: config.output.file.as_deref(),
        store: config.output.store.as_deref(),
        collector: Some(&config.collector),
        spool: spool.as_deref(),
        summary: args.summary.as_deref(),
        ..Files::default()
    }
    .check()?;
    let format = args.format.unwrap_or_else(|| {
        let set = Format::from(config.output.format);
        if config.output.file.is_none() && set == Format::Jsonl { Format::for_stdout() } else { set }
    });
    Ok((config, format))
}

#[cfg(not(windows))]
mod system {
    use super::{Config, DoctorArgs, Exit, Format, RecordArgs, Terminal, WatchArgs, complain};
    use crate::cli::ServiceCommand;
    use crate::sys::needs_windows;

    fn refuse(command: &str) -> Exit {
        complain(needs_windows(command));
        Exit::Usage
    }

    pub(in crate::cli) fn watch(_args: &WatchArgs, _config: Config, _format: Format) -> Exit {
        refuse("watch")
    }

    pub(in crate::cli) fn record(_args: &RecordArgs, _terminal: &Terminal) -> Exit {
        refuse("record")
    }

    pub(in crate::cli) fn doctor(_args: &DoctorArgs, _terminal: &Terminal) -> Exit {
        refuse("doctor")
    }

    pub(in crate::cli) fn service(_command: &ServiceCommand, _terminal: &dyn Fn() -> Terminal) -> Exit {
        refuse("service")
    }
}

#[cfg(windows)]
#[path = "live/windows.rs"]
mod system;

pub(super) use system::{doctor, record, service, watch};
