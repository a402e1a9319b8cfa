//! Log lines on standard error, in which no foreign text can control the terminal.

use crate::printable::{Lines, Printable};
use std::fmt::{self, Debug};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats the message and the fields of a log line. Values are printed with [`Printable`], the message with [`Lines`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CleanFields;

impl<'writer> FormatFields<'writer> for CleanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl tracing::field::Visit for Visitor<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        if self.result.is_err() {
            return;
        }
        let blank = if self.is_first { "" } else { " " };
        self.is_first = false;
        let value = format_args!("{value:?}");
        self.result = match field.name() {
            "message" => write!(self.writer, "{blank}{}", Lines(value)),
            name => write!(self.writer, "{blank}{}={}", name.trim_start_matches("r#"), Printable(value)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::CleanFields;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_and_fields_are_printable() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .with_writer(move || writer.clone())
            .fmt_fields(CleanFields)
            .finish();
        let name = "srv\x1b[2J\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name, sensor = %name, count = 3, "no\nERROR {name}");
        });
        let text = String::from_utf8(lines.0.lock().expect("nobody panicked").clone()).expect("it is text");
        let expected = " WARN no\n    ERROR srv\\u{1b}[2J\\u{202e} name=\"srv\\u{1b}[2J\\u{202e}\" \
                        sensor=srv\\u{1b}[2J\\u{202e} count=3\n";
        assert_eq!(text, expected);
    }
}
