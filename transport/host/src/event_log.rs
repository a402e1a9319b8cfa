//! Messages to the Windows event log: log Application, under the name of a source, which is that of the service.
//!
//! The message file is `EventCreate.exe` of Windows, whose messages 1 to 1,000 are nothing but their first
//! insertion, so that no library of our own need be registered. Warnings and errors of the program reach the log
//! through [`EventLogLayer`], at a bounded rate: a log that is flooded hides what matters.
#![expect(unsafe_code, reason = "the event log functions take pointers")]

use crate::registry::{self, Hive};
use crate::wide::wide;
use std::fmt::{self, Write as _};
use std::io;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::Context;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};

/// Id of an event that [`EventLogLayer`] writes for an error.
pub const ERROR_ID: u16 = 1;
/// Id of an event that [`EventLogLayer`] writes for a warning.
pub const WARNING_ID: u16 = 2;
/// Largest id that the message file knows.
pub const ID_MAX: u16 = 1000;
/// Longest text, in UTF-16 units; `ReportEvent` refuses more.
pub const TEXT_UNITS_MAX: usize = 31_839;

/// Where the sources of the log are registered, each by a key of its name.
const SOURCES_KEY: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";
const MESSAGE_FILE: &str = r"%SystemRoot%\System32\EventCreate.exe";
/// Errors, warnings and information.
const TYPES: u32 = 7;
const WINDOW: Duration = Duration::from_mins(1);

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The program does not do its work.
    Error,
    /// Something was lost or is about to go wrong.
    Warning,
    /// Such as started and stopped.
    Information,
}

fn source_key(source: &str) -> String {
    format!(r"{SOURCES_KEY}\{source}")
}

/// Registers `source`, so that Event Viewer shows texts without a complaint.
///
/// # Errors
///
/// What the registry says: access denied unless elevated.
pub fn install_source(source: &str) -> io::Result<()> {
    let key = source_key(source);
    registry::set_expanding(Hive::LocalMachine, &key, "EventMessageFile", MESSAGE_FILE)?;
    registry::set_dword(Hive::LocalMachine, &key, "TypesSupported", TYPES)
}

/// Removes `source`; says whether it was there. Events that were written stay.
///
/// # Errors
///
/// As [`install_source`]; invalid input for a name that is empty, or of several keys, which would remove others.
pub fn uninstall_source(source: &str) -> io::Result<bool> {
    if source.is_empty() || source.contains(['\\', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a source"));
    }
    registry::delete(Hive::LocalMachine, &source_key(source))
}

/// Writes one event of `source`. `id` is brought into 1 to 1,000, a long text is cut.
///
/// # Errors
///
/// What the event log says.
pub fn report(source: &str, level: Level, id: u16, text: &str) -> io::Result<()> {
    Source::open(source)?.report(level, id, text)
}

/// A source, open for writing; closed on drop.
struct Source(HANDLE);

// SAFETY: the handle names a connection to the event log service, whose functions may be called from any thread.
unsafe impl Send for Source {}

impl Source {
    fn open(source: &str) -> io::Result<Self> {
        let name = wide(source);
        // SAFETY: `name` ends in NUL; no server means this machine.
        let handle = unsafe { RegisterEventSourceW(null(), name.as_ptr()) };
        if handle.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(handle)) }
    }

    fn report(&self, level: Level, id: u16, text: &str) -> io::Result<()> {
        let kind = match level {
            Level::Error => EVENTLOG_ERROR_TYPE,
            Level::Warning => EVENTLOG_WARNING_TYPE,
            Level::Information => EVENTLOG_INFORMATION_TYPE,
        };
        let id = u32::from(id.clamp(1, ID_MAX));
        let text = insertion(text);
        let strings = [text.as_ptr()];
        // SAFETY: the handle is open; there is one string, which ends in NUL, no user and no data.
        let written =
            unsafe { ReportEventW(self.0, kind, 0, id, null_mut(), 1, 0, strings.as_ptr(), null()) };
        if written == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: `RegisterEventSourceW` gave the handle, and it is closed once.
        unsafe { DeregisterEventSource(self.0) };
    }
}

/// A text as an insertion: at most 31,839 UTF-16 units and a NUL. A NUL within becomes U+FFFD, and a per cent sign is
/// parted from what follows, because a viewer would take `%1` for another insertion.
fn insertion(text: &str) -> Vec<u16> {
    let mut units = Vec::with_capacity(text.len().min(TEXT_UNITS_MAX) + 1);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let char = if char == '\0' { char::REPLACEMENT_CHARACTER } else { char };
        let part = char == '%' && chars.peek().is_some_and(|next| next.is_ascii_digit() || *next == '%');
        if units.len() + char.len_utf16() + usize::from(part) > TEXT_UNITS_MAX {
            break;
        }
        units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
        if part {
            units.push(u16::from(b' '));
        }
    }
    units.push(0);
    units
}

/// Lets so many through in a minute and counts the others.
#[derive(Debug)]
struct RateLimit {
    per_minute: u32,
    window: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl RateLimit {
    /// `Some` lets one through and tells how many were held back since the last.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.window.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window = Some(now);
            self.admitted = 0;
        }
        if self.admitted < self.per_minute {
            self.admitted += 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

/// Sends warnings and errors of the program to the event log.
///
/// What is over the limit is counted, and the next event that is written says how many there were. If the log
/// refuses an event, that one counts as held back too: there is nowhere else to complain.
pub struct EventLogLayer {
    state: Mutex<(Source, RateLimit)>,
}

impl EventLogLayer {
    /// Opens `source`; at most `per_minute` events are written in a minute.
    ///
    /// # Errors
    ///
    /// What the event log says.
    pub fn new(source: &str, per_minute: u32) -> io::Result<Self> {
        let limit = RateLimit { per_minute, window: None, admitted: 0, suppressed: 0 };
        Ok(Self { state: Mutex::new((Source::open(source)?, limit)) })
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for EventLogLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let (level, id) = match *event.metadata().level() {
            tracing::Level::ERROR => (Level::Error, ERROR_ID),
            tracing::Level::WARN => (Level::Warning, WARNING_ID),
            _ => return,
        };
        // Without the lock: values are written by code of their own, whose panic would be the next event.
        let mut text = Text::default();
        event.record(&mut text);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (source, limit) = &mut *state;
        let Some(suppressed) = limit.admit(Instant::now()) else {
            return;
        };
        let text = text.finish(suppressed, limit.per_minute);
        if source.report(level, id, &text).is_err() {
            limit.suppressed += suppressed + 1;
        }
    }
}

/// Collects the message and the fields of an event.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self, suppressed: u64, per_minute: u32) -> String {
        let mut text = String::new();
        // First, for the end may be cut.
        if suppressed > 0 {
            let _ = write!(
                text,
                "({suppressed} messages before this one were left out: over {per_minute} a minute) "
            );
        }
        text + &self.message + &self.fields
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, "\r\n{}: {value:?}", field.name())
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insertions_are_bounded_and_harmless() {
        let rows = [
            ("plain", "a b", "a b"),
            ("NUL", "a\0b", "a\u{fffd}b"),
            ("insertion", "%1 100% %%2 %", "% 1 100% % % 2 %"),
        ];
        for (name, text, expected) in rows {
            let units = insertion(text);
            assert_eq!(units.last(), Some(&0), "{name}");
            assert_eq!(String::from_utf16(&units[..units.len() - 1]).unwrap(), expected, "{name}");
        }
        for text in
            ["a".repeat(40_000), "\u{1f600}".repeat(20_000), format!("{}%1", "a".repeat(TEXT_UNITS_MAX - 1))]
        {
            let units = insertion(&text);
            assert!((TEXT_UNITS_MAX - 1..=TEXT_UNITS_MAX).contains(&(units.len() - 1)));
            assert!(String::from_utf16(&units).is_ok(), "cut within a pair");
        }
    }

    #[test]
    fn the_rate_is_bounded_and_what_is_held_back_is_told() {
        let start = Instant::now();
        let mut limit = RateLimit { per_minute: 2, window: None, admitted: 0, suppressed: 0 };
        let rows =
            [(0, Some(0)), (1, Some(0)), (2, None), (59, None), (60, Some(2)), (61, Some(0)), (62, None)];
        for (second, expected) in rows {
            assert_eq!(limit.admit(start + Duration::from_secs(second)), expected, "second {second}");
        }
        let mut none = RateLimit { per_minute: 0, window: None, admitted: 0, suppressed: 0 };
        assert_eq!(none.admit(start), None);
    }

    #[test]
    fn the_source_is_registered_written_to_and_removed() {
        let source = format!("etwsieve-source-test-{}", std::process::id());
        if let Err(error) = install_source(&source) {
            println!("skipped: {error}");
            return;
        }
        let values = registry::values(Hive::LocalMachine, &source_key(&source)).unwrap().unwrap();
        report(&source, Level::Warning, 0, "a test of etwsieve").unwrap();
        assert!(uninstall_source(&source).unwrap());
        assert!(!uninstall_source(&source).unwrap());
        assert!(uninstall_source("").is_err());
        assert_eq!(values["typessupported"], registry::Value::Dword(7));
        assert_eq!(values["eventmessagefile"], registry::Value::Text(MESSAGE_FILE.into()));
    }

    struct Shared(std::sync::Arc<EventLogLayer>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Shared {
        fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
            tracing_subscriber::Layer::<S>::on_event(&*self.0, event, context);
        }
    }

    #[test]
    fn the_layer_takes_warnings_and_errors_alone() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let layer = std::sync::Arc::new(EventLogLayer::new("etwsieve", 2).unwrap());
        let subscriber = tracing_subscriber::registry().with(Shared(layer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not written");
            tracing::warn!(lost = 3, "a test of etwsieve");
            tracing::error!("a test of etwsieve");
            tracing::error!("one too many");
        });
        let state = layer.state.lock().unwrap();
        assert_eq!((state.1.admitted, state.1.suppressed), (2, 1));
    }

    #[test]
    fn texts_tell_message_fields_and_what_was_left_out() {
        let text = Text { message: "lost".into(), fields: "\r\ncount: 3".into() };
        assert_eq!(
            text.finish(4, 9),
            "(4 messages before this one were left out: over 9 a minute) lost\r\ncount: 3"
        );
    }
}
