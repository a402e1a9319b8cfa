//! The file of a session in file mode, written when it stops.

use super::feed::Feed;
use super::{Scenario, Session};
use crate::writer::TraceWriter;
use etwsieve_etl::FileTime;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Writes a trace to `path` with the events that the enabled providers of `session` emitted within `elapsed`.
///
/// Without a pace, all events of the scenario were emitted. Events that do not fit into a buffer are counted as lost, as on
/// Windows. Events of providers that are disabled at the end are missing.
///
/// # Errors
///
/// Errors of reading the trace of the scenario and of writing the file.
pub fn write_log_file(
    path: &Path,
    session: &Session,
    scenario: &Scenario,
    elapsed: Duration,
) -> io::Result<()> {
    let mut feed = Feed::open(scenario)?;
    let emitted = match session.enabled_at {
        0 => 0,
        _ => scenario.pace.emitted(elapsed).unwrap_or(u64::MAX).min(feed.total()),
    };
    let mut writer = TraceWriter::new().buffer_len(session.buffer_size_kb * 1024);
    writer.logger_name.clone_from(&session.name);
    writer.log_file_name.clone_from(&session.log_file_name);
    writer.log_file_mode = session.log_file_mode;
    (writer.events_lost, writer.buffers_lost) = (session.events_lost, session.log_buffers_lost);
    // A session starts before its events.
    let times = (0..emitted).filter_map(|number| feed.event(number).map(|event| event.facts.time.0));
    if let Some(first) = times.min() {
        writer.start = FileTime(first);
    }
    for number in 0..emitted {
        let Some(event) = feed.event(number) else { break };
        let facts = event.facts;
        let Some(provider) = session.provider(&facts.provider.to_string()) else { continue };
        if provider.admits(facts.event_id, facts.level, facts.keywords) {
            writer.processors = writer.processors.max(u32::from(facts.processor) + 1);
            writer.push(event.to_spec(writer.start, |kind| provider.carries(kind)));
        }
    }
    std::fs::write(path, writer.build())
}

#[cfg(test)]
mod tests {
    use super::write_log_file;
    use crate::standin::{Enabled, Scenario, Session, feed};
    use etwsieve_etl::TraceFile;
    use std::time::Duration;

    #[test]
    fn holds_what_was_emitted_and_admitted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.etl");
        let provider = |id| Enabled {
            guid: feed::POWERSHELL.to_string(),
            event_ids: Some(vec![id]),
            filter_in: true,
            ..Enabled::default()
        };
        let session = |id, enabled_at| Session {
            name: "recorder".into(),
            buffer_size_kb: 64,
            enabled_at,
            events_lost: 3,
            providers: vec![provider(id)],
            ..Session::default()
        };
        let rows = [
            ("all", "", session(4104, 1), 50),
            ("some by then", "rate 10", session(4104, 1), 20),
            ("another id", "", session(4103, 1), 0),
            ("nothing enabled", "", session(4104, 0), 0),
        ];
        for (name, pace, session, expected) in rows {
            let scenario = Scenario::parse(&format!("synthetic count=50\n{pace}")).unwrap();
            write_log_file(&path, &session, &scenario, Duration::from_secs(2)).unwrap();
            let file = TraceFile::open(&path).unwrap();
            let trace = file.trace().unwrap();
            assert_eq!((trace.info().logger_name.as_str(), trace.info().events_lost), ("recorder", 3));
            let mut events = trace.events();
            let mut count = 0;
            while let Some(event) = events.next() {
                count += usize::from(event.event_id == Some(4104));
                assert!(event.sid().is_none(), "nobody asked for SIDs");
            }
            assert_eq!((count, events.damage().total()), (expected, 0), "{name}");
        }
    }
}
