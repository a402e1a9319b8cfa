//! Runs the release program `etwsieve watch` on a machine of the stand-in.

use etwsieve_tests::corpus::repository;
use etwsieve_tests::standin::{Host, Lab, interrupt, windows_path};
use serde_json::Value;
use std::env;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Name of the sensor's session.
pub(crate) const SESSION: &str = "etwsieve";
/// Maximum time to wait for anything. Machines that run tests may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Providers of a session: both editions of PowerShell, and ETW's own lost events. They are enabled one by one.
pub(crate) const PROVIDERS: usize = 3;

const POWERSHELL: &str = "{a0c1853b-5c40-4b15-8766-3cf1c58f985a}";
const PUBLISHERS: &str = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\WINEVT\Publishers";

/// A [`Lab`] or a [`Host`] that no other test uses at the same time: all share the objects of one Wine, and the
/// processors.
pub(crate) struct Alone<T> {
    inner: T,
    _guard: MutexGuard<'static, ()>,
}

impl<T> Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// The host of all machines; `None`, with a message, where the stand-in cannot run.
pub(crate) fn host() -> Option<Alone<Host>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Alone { inner: Host::find()?, _guard: guard })
}

/// A machine with a scenario; `None`, with a message, where the stand-in cannot run.
pub(crate) fn lab(scenario: &str) -> Option<Alone<Lab>> {
    static REGISTERED: Once = Once::new();
    let Alone { inner: host, _guard: guard } = host()?;
    REGISTERED.call_once(|| register(true));
    let lab = host.lab(scenario).expect("the folder of a machine can be made");
    Some(Alone { inner: lab, _guard: guard })
}

/// Registers the provider of Windows PowerShell, as on a real Windows, or removes its registration.
pub(crate) fn register(registered: bool) {
    if cfg!(windows) {
        return;
    }
    let key = format!(r"{PUBLISHERS}\{POWERSHELL}");
    let args: &[&str] = if registered {
        &["reg", "add", &key, "/ve", "/d", "Microsoft-Windows-PowerShell", "/f"]
    } else {
        &["reg", "delete", &key, "/f"]
    };
    let runner = repository().join("tests/etw-standin/wine-runner");
    let output = Command::new(runner).args(args).output().expect("the runner can be started");
    assert!(output.status.success() || !registered, "{output:?}");
}

/// Returns `full` if the environment contains `ETWSIEVE_CAMPAIGN=full`, otherwise `short`.
pub(crate) fn campaign(short: u64, full: u64) -> u64 {
    if env::var("ETWSIEVE_CAMPAIGN").is_ok_and(|value| value == "full") { full } else { short }
}

/// A running watch.
pub(crate) struct Watching<'a> {
    lab: &'a Lab,
    child: Option<Child>,
    summary: PathBuf,
}

/// The results of a watch.
pub(crate) struct Watched {
    /// Exit code.
    pub code: Option<i32>,
    /// The lines of standard output.
    pub lines: Vec<Value>,
    /// Standard error.
    pub log: String,
    /// The summary.
    pub summary: Value,
}

impl<'a> Watching<'a> {
    /// Starts `etwsieve watch` with JSON Lines on standard output, and waits until all providers are enabled.
    pub(crate) fn start(lab: &'a Lab, args: &[&str]) -> Self {
        // A session left by a killed sensor must not be mistaken for the new one.
        let left = lab.machine().session(SESSION).expect("it can be read").map(|session| session.incarnation);
        let watching = Self::spawn(lab, args);
        // `--amsi` enables one more provider.
        let providers = PROVIDERS + usize::from(args.contains(&"--amsi"));
        lab.machine()
            .wait(SESSION, PATIENCE, |session| {
                Some(session.incarnation) != left && session.providers.len() == providers
            })
            .expect("a session starts");
        watching
    }

    /// Starts `etwsieve watch` and does not wait.
    pub(crate) fn spawn(lab: &'a Lab, args: &[&str]) -> Self {
        let summary = lab.folder().join("summary.json");
        let _ = fs::remove_file(&summary);
        let mut all = vec!["watch".to_owned(), "--format".into(), "jsonl".into()];
        all.extend(["--summary".to_owned(), windows_path(&summary)]);
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut command = lab.command("etwsieve", &all).expect("the release program can be patched");
        let out = |name: &str| fs::File::create(lab.folder().join(name)).expect("a file can be made");
        let child = command.stdout(out("out.jsonl")).stderr(out("log.txt")).stdin(Stdio::null()).spawn();
        Self { lab, child: Some(child.expect("the program starts")), summary }
    }

    /// Process id of the program; under Wine, of its Linux process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Stops the program as Ctrl-C does, and waits for its end.
    pub(crate) fn finish(mut self) -> Watched {
        let child = self.child.take().expect("it runs");
        interrupt(&child).expect("a signal can be sent");
        self.wait(child)
    }

    /// Waits until the program ends by itself.
    pub(crate) fn end(mut self) -> Watched {
        let child = self.child.take().expect("it runs");
        self.wait(child)
    }

    /// Kills the program, which cleans nothing up.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }

    fn wait(&self, mut child: Child) -> Watched {
        let start = Instant::now();
        let status = loop {
            match child.try_wait().expect("it can be waited for") {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    panic!("the watch does not end: {}", self.log());
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        let text = fs::read_to_string(self.lab.folder().join("out.jsonl")).expect("standard output is UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        let summary = fs::read_to_string(&self.summary).ok();
        let summary = summary.map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON"));
        assert_eq!(self.lab.machine().failure(), None, "the stand-in reports no error");
        let log = format!("{status}\n{}", self.log());
        Watched { code: status.code(), lines, log, summary }
    }

    /// Returns standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.lab.folder().join("log.txt")).unwrap_or_default()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Watched {
    /// Returns a count of the summary.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let value = name.split('.').fold(&self.summary, |value, key| &value[key]);
        value.as_u64().unwrap_or_else(|| panic!("{name} in {:#}\n{}", self.summary, self.log))
    }

    /// Returns the number of dropped events.
    pub(crate) fn dropped(&self) -> u64 {
        let dropped = self.summary["dropped"].as_object();
        dropped.map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
    }

    /// Fails unless every event of the summary is accounted for.
    pub(crate) fn assert_balanced(&self) {
        let selected = self.count("events_matched") + self.count("events_not_matched") + self.dropped();
        assert_eq!(self.count("events_selected"), selected, "{:#}", self.summary);
        assert_eq!(self.count("events_seen"), selected + self.count("events_other"), "{:#}", self.summary);
    }

    /// Returns the detections of events, without the sensor's notices.
    pub(crate) fn detections(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["notice"].is_null()).collect()
    }

    /// Returns the titles of the notices.
    pub(crate) fn notices(&self) -> Vec<&str> {
        let notices = self.lines.iter().filter(|line| !line["notice"].is_null());
        notices.filter_map(|line| line["rule_title"].as_str()).collect()
    }
}

/// Runs another command of the program and waits for its end.
pub(crate) fn run(lab: &Lab, args: &[&str]) -> Output {
    lab.command("etwsieve", args).expect("it can be patched").output().expect("it runs")
}
