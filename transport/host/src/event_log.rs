//! Writes messages to the Application log of Windows, under the name of an event source. The source has the name of the
//! service.
//!
//! The message file is `EventCreate.exe` of Windows, whose messages 1 to 1,000 consist of their first insertion string,
//! so the program needs no message file. Warnings and errors of the program are logged through [`EventLogLayer`] at a
//! limited rate, because important events are hard to find in a flooded log.
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

/// Event id of the errors that [`EventLogLayer`] writes.
pub const ERROR_ID: u16 = 1;
/// Event id of the warnings that [`EventLogLayer`] writes.
pub const WARNING_ID: u16 = 2;
/// Highest event id of the message file.
pub const ID_MAX: u16 = 1000;
/// Maximum length of a text, in UTF-16 units; `ReportEvent` rejects longer ones.
pub const TEXT_UNITS_MAX: usize = 31_839;

/// Registry key of the log; each event source is a subkey.
const SOURCES_KEY: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";
const MESSAGE_FILE: &str = r"%SystemRoot%\System32\EventCreate.exe";
/// Types of events that a source may write: errors, warnings and information.
const TYPES: u32 = 7;
const WINDOW: Duration = Duration::from_mins(1);

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The program does not work.
    Error,
    /// Something was lost, or a failure is imminent.
    Warning,
    /// A normal event, such as a start or a stop.
    Information,
}

fn source_key(source: &str) -> String {
    format!(r"{SOURCES_KEY}\{source}")
}

/// Registers `source`, so that Event Viewer finds its message file.
///
/// # Errors
///
/// Errors of the registry: access is denied unless the process is elevated.
pub fn install_source(source: &str) -> io::Result<()> {
    let key = source_key(source);
    registry::set_expanding(Hive::LocalMachine, &key, "EventMessageFile", MESSAGE_FILE)?;
    registry::set_dword(Hive::LocalMachine, &key, "TypesSupported", TYPES)
}

/// Removes `source`. Returns true if it existed. Events already written remain.
///
/// # Errors
///
/// The same as for [`install_source`]. `InvalidInput` for a name that is empty or contains a separator, because other
/// keys would be removed.
pub fn uninstall_source(source: &str) -> io::Result<bool> {
    if source.is_empty() || source.contains(['\\', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a valid name of an event source"));
    }
    registry::delete(Hive::LocalMachine, &source_key(source))
}

/// Writes an event of `source`. `id` is clamped to 1 to 1,000, and a long text is truncated.
///
/// # Errors
///
/// Errors of the event log.
pub fn report(source: &str, level: Level, id: u16, text: &str) -> io::Result<()> {
    Source::open(source)?.report(level, id, text)
}

/// An open event source; closed on drop.
struct Source(HANDLE);

// SAFETY: the handle refers to a connection to the event log service, whose functions may be called from any thread.
unsafe impl Send for Source {}

impl Source {
    fn open(source: &str) -> io::Result<Self> {
        let name = wide(source);
        // SAFETY: `name` is NUL-terminated; a null server means this machine.
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
        // SAFETY: the handle is open; there is one string, which is NUL-terminated, no user and no data.
        let written =
            unsafe { ReportEventW(self.0, kind, 0, id, null_mut(), 1, 0, strings.as_ptr(), null()) };
        if written == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: `RegisterEventSourceW` returned the handle, and it is closed once.
        unsafe { DeregisterEventSource(self.0) };
    }
}

/// Converts a text to an insertion string: at most 31,839 UTF-16 units and a NUL. A NUL in the text becomes U+FFFD. A
/// percent sign is separated from what follows, because a viewer would replace `%1` by another insertion string.
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

/// Admits a limited number of events per minute and counts the others.
#[derive(Debug)]
struct RateLimit {
    per_minute: u32,
    window: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl RateLimit {
    /// Returns `None` if the limit is reached, otherwise the number of events suppressed since the last one that was
    /// admitted.
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

/// Writes warnings and errors of the program to the event log.
///
/// Events beyond the limit are counted, and the next event written reports their number. An event that cannot be
/// written counts as suppressed, too.
pub struct EventLogLayer {
    state: Mutex<(Source, RateLimit)>,
}

impl EventLogLayer {
    /// Opens `source` and writes at most `per_minute` events a minute.
    ///
    /// # Errors
    ///
    /// Errors of the event log.
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
        // The lock is not held here: formatting a value runs foreign code, and a panic in it would log another event.
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
        // At the start, because the end may be truncated.
        if suppressed > 0 {
            let _ =
                write!(text, "({suppressed} earlier messages were suppressed: limit {per_minute} a minute) ");
        }
        text + &self.message + &self.fields
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
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
    fn insertion_strings_are_bounded_and_escaped() {
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
    fn the_rate_is_bounded_and_suppressed_events_are_counted() {
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
    fn only_warnings_and_errors_are_logged() {
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
    fn texts_have_message_fields_and_suppressed_count() {
        let text = Text { message: "lost".into(), fields: "\r\ncount: 3".into() };
        assert_eq!(
            text.finish(4, 9),
            "(4 earlier messages were suppressed: limit 9 a minute) lost\r\ncount: 3"
        );
    }
}
