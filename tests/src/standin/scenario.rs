//! The scenario of a machine: its events, and the incidents while a program consumes them. A text of one directive per line.

use super::Synthetic;
use super::hostile::Hostile;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// An error in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The problem.
    pub problem: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the scenario: {}", self.line, self.problem)
    }
}

impl std::error::Error for ScenarioError {}

/// The source of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// No events.
    #[default]
    Nothing,
    /// A recorded trace, in the order of time.
    Trace(PathBuf),
    /// Synthetic events.
    Synthetic(Synthetic),
}

/// The times at which events are emitted, counted from the moment at which the first provider is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the consumer processes them.
    #[default]
    Fastest,
    /// Evenly, this number of events per second.
    Rate(u64),
    /// `count` events at once, every `every`, the first of them at the start.
    Burst {
        /// Number of events in a burst.
        count: u64,
        /// Time between the starts of two bursts.
        every: Duration,
    },
}

impl Pace {
    /// Number of events emitted after `elapsed`; `None` if it depends on the consumer.
    pub fn emitted(self, elapsed: Duration) -> Option<u64> {
        match self {
            Self::Fastest => None,
            Self::Rate(rate) => Some((elapsed.as_secs_f64() * rate as f64) as u64),
            Self::Burst { count, every } => {
                let bursts = 1 + elapsed.as_nanos() / every.as_nanos().max(1);
                Some(count.saturating_mul(u64::try_from(bursts).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// An incident, which happens once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Number of events of the scenario before it.
    pub after: u64,
    /// Its kind.
    pub kind: IncidentKind,
}

/// The kind of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// This number of events was lost because no buffer was free.
    EventsLost(u32),
    /// This number of buffers was lost because the consumer was too slow.
    BuffersLost(u32),
    /// This number of buffers could not be written to the file.
    LogBuffersLost(u32),
    /// A hostile record arrives, which a correct program handles.
    Hostile(Hostile),
    /// Another program stops the session.
    StopSession,
    /// Another program disables one provider of the session, or all.
    DisableProvider(Option<Uuid>),
}

/// A scenario. The documentation of the crate `etwsieve-etw-standin` lists the directives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate directive")]
pub struct Scenario {
    /// The source of events.
    pub source: Source,
    /// Number of times that the events of the source are emitted; 0 counts as 1.
    pub repeat: u64,
    /// The times at which events are emitted.
    pub pace: Pace,
    /// Number of the newest events that stay in a buffer until a flush or stop.
    pub hold: u64,
    /// The incidents in the order of time.
    pub incidents: Vec<Incident>,
    /// `StartTraceW` fails with 5.
    pub deny_start: bool,
    /// `EnableTraceEx2` fails with 5.
    pub deny_enable: bool,
    /// `OpenTraceW` fails with 5.
    pub deny_open: bool,
    /// `ControlTraceW` fails with 5 for queries.
    pub deny_query: bool,
    /// Number of sessions of other programs on this machine.
    pub other_sessions: usize,
    /// Number of sessions of other programs that have enabled a provider, or each provider with `None`.
    pub sessions_on_provider: Vec<(Option<Uuid>, u32)>,
}

impl Scenario {
    /// Parses the text of a scenario.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`] for an unknown directive, and for a missing or superfluous word.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let applied = scenario.apply(name, rest.trim());
            applied.map_err(|problem| ScenarioError { line: number + 1, problem })?;
        }
        scenario.incidents.sort_by_key(|incident| incident.after);
        Ok(scenario)
    }

    /// Number of sessions of other programs that have enabled `provider`.
    pub fn others_on(&self, provider: &Uuid) -> u32 {
        let counts = self.sessions_on_provider.iter();
        counts.filter(|(guid, _)| guid.is_none_or(|guid| guid == *provider)).map(|(_, count)| count).sum()
    }

    fn apply(&mut self, name: &str, rest: &str) -> Result<(), String> {
        if name == "trace" {
            if rest.is_empty() {
                return Err("`trace` needs a path".into());
            }
            // The only directive whose argument may contain spaces.
            self.source = Source::Trace(rest.into());
            return Ok(());
        }
        let mut words = Words::new(rest);
        match name {
            "synthetic" => {
                let default = Synthetic::default();
                self.source = Source::Synthetic(Synthetic {
                    count: words.number("count")?.ok_or("`synthetic` needs count=")?,
                    units: words.number("units")?.unwrap_or(default.units),
                    every: words.number("every")?.unwrap_or(default.every),
                    event_id: words.number("event_id")?.unwrap_or(default.event_id),
                });
            }
            "repeat" => self.repeat = words.first()?,
            "hold" => self.hold = words.first()?,
            "rate" => {
                self.pace = match words.first()? {
                    0 => Pace::Fastest,
                    rate => Pace::Rate(rate),
                }
            }
            "burst" => {
                let every_ms: u64 = words.number("every_ms")?.ok_or("`burst` needs every_ms=")?;
                if every_ms == 0 {
                    return Err("every_ms= must not be 0".into());
                }
                self.pace = Pace::Burst { count: words.first()?, every: Duration::from_millis(every_ms) };
            }
            "events_lost" => {
                let count = words.number("count")?.unwrap_or(1);
                self.add_incident(&mut words, IncidentKind::EventsLost(count))?;
            }
            "buffers_lost" => {
                let count = words.number("count")?.unwrap_or(1);
                self.add_incident(&mut words, IncidentKind::BuffersLost(count))?;
            }
            "log_buffers_lost" => {
                let count = words.number("count")?.unwrap_or(1);
                self.add_incident(&mut words, IncidentKind::LogBuffersLost(count))?;
            }
            "hostile" => {
                let kinds = match words.take("kind") {
                    None => Hostile::ALL.to_vec(),
                    Some(kind) => vec![Hostile::from_name(kind).ok_or(format!("no kind {kind}"))?],
                };
                let after = words.number("after")?.unwrap_or(0);
                let incident = |hostile| Incident { after, kind: IncidentKind::Hostile(hostile) };
                self.incidents.extend(kinds.into_iter().map(incident));
            }
            "stop_session" => self.add_incident(&mut words, IncidentKind::StopSession)?,
            "disable_provider" => {
                let guid = words.guid()?;
                self.add_incident(&mut words, IncidentKind::DisableProvider(guid))?;
            }
            "deny_start" => self.deny_start = true,
            "deny_enable" => self.deny_enable = true,
            "deny_open" => self.deny_open = true,
            "deny_query" => self.deny_query = true,
            "no_session_left" => self.other_sessions = super::SESSIONS_MAX,
            "other_sessions" => self.other_sessions = words.first()?,
            "provider_full" => {
                let guid = words.guid()?;
                self.sessions_on_provider.push((guid, super::SESSIONS_PER_PROVIDER_MAX));
            }
            "sessions_on_provider" => {
                let guid = words.guid()?;
                self.sessions_on_provider.push((guid, words.first()?));
            }
            // This directive has no effect; it documents that the session continues after the last event.
            "end" => {
                if words.bare()? != "stay" {
                    return Err("`end` can only be `stay`; see stop_session".into());
                }
            }
            _ => return Err(format!("no directive {name}")),
        }
        words.finish()
    }

    fn add_incident(&mut self, words: &mut Words<'_>, kind: IncidentKind) -> Result<(), String> {
        let after = words.number("after")?.ok_or("needs after=")?;
        self.incidents.push(Incident { after, kind });
        Ok(())
    }
}

/// The arguments of a directive.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn new(rest: &'a str) -> Self {
        Self(rest.split_whitespace().collect())
    }

    /// Takes the value of `key=value`.
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(key)?.strip_prefix('=');
        let at = self.0.iter().position(|word| value(word).is_some())?;
        value(&self.0.remove(at))
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        self.take(key)
            .map(|value| value.parse().map_err(|_| format!("{key}={value} is not a number")))
            .transpose()
    }

    fn guid(&mut self) -> Result<Option<Uuid>, String> {
        self.take("guid").map(|value| value.parse().map_err(|_| format!("{value} is no GUID"))).transpose()
    }

    /// Takes the only word that is not of the form `key=value`.
    fn bare(&mut self) -> Result<&'a str, String> {
        let at = self.0.iter().position(|word| !word.contains('=')).ok_or("a word is missing")?;
        Ok(self.0.remove(at))
    }

    fn first<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let word = self.bare()?;
        word.parse().map_err(|_| format!("{word} is not a number"))
    }

    fn finish(&self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |word| Err(format!("superfluous: {word}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Hostile, Incident, IncidentKind, Pace, Scenario, Source};
    use crate::standin::Synthetic;
    use std::time::Duration;

    #[test]
    fn parses_all_directives() {
        let text = "# a comment\n\n synthetic count=10 units=64 every=5 event_id=4103\nrepeat 2\nhold 3\nrate 100\n\
             stop_session after=9\nevents_lost after=4 count=2\nbuffers_lost after=5\nlog_buffers_lost after=5\n\
             hostile after=1 kind=zero_length\ndisable_provider after=7\ndeny_start\ndeny_enable\ndeny_open\n\
             deny_query\nother_sessions 63\nsessions_on_provider 7\n\
             provider_full guid=a0c1853b-5c40-4b15-8766-3cf1c58f985a\nend stay\n";
        let scenario = Scenario::parse(text).unwrap();
        assert_eq!(
            scenario.source,
            Source::Synthetic(Synthetic { count: 10, units: 64, every: 5, event_id: 4103 })
        );
        assert_eq!((scenario.repeat, scenario.hold, scenario.pace), (2, 3, Pace::Rate(100)));
        let at = |after, kind| Incident { after, kind };
        assert_eq!(
            scenario.incidents,
            [
                at(1, IncidentKind::Hostile(Hostile::ZeroLength)),
                at(4, IncidentKind::EventsLost(2)),
                at(5, IncidentKind::BuffersLost(1)),
                at(5, IncidentKind::LogBuffersLost(1)),
                at(7, IncidentKind::DisableProvider(None)),
                at(9, IncidentKind::StopSession),
            ]
        );
        assert!(scenario.deny_start && scenario.deny_enable && scenario.deny_open && scenario.deny_query);
        assert_eq!(scenario.other_sessions, 63);
        assert_eq!(scenario.others_on(&uuid::uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a")), 15);
        assert_eq!(scenario.others_on(&uuid::Uuid::nil()), 7);
    }

    #[test]
    fn says_which_line_is_wrong() {
        let rows = [
            ("unknown", "rate 1\nfly\n", 2),
            ("no number", "rate fast", 1),
            ("word missing", "burst every_ms=5", 1),
            ("superfluous", "\ndeny_start now", 2),
            ("no path", "trace", 1),
            ("no moment", "stop_session", 1),
            ("no such kind", "hostile kind=friendly", 1),
            ("no such end", "end stop", 1),
        ];
        for (name, text, line) in rows {
            assert_eq!(Scenario::parse(text).unwrap_err().line, line, "{name}");
        }
    }

    #[test]
    fn paths_may_hold_spaces() {
        let scenario = Scenario::parse("trace Z:\\my traces\\a.etl \n").unwrap();
        assert_eq!(scenario.source, Source::Trace("Z:\\my traces\\a.etl".into()));
    }

    #[test]
    fn paces() {
        let ms = Duration::from_millis;
        let burst = Pace::Burst { count: 50, every: ms(100) };
        let rows = [
            ("fastest", Pace::Fastest, ms(5), None),
            ("rate at the start", Pace::Rate(1000), ms(0), Some(0)),
            ("rate", Pace::Rate(1000), ms(1500), Some(1500)),
            ("first burst", burst, ms(0), Some(50)),
            ("before the second", burst, ms(99), Some(50)),
            ("third", burst, ms(200), Some(150)),
        ];
        for (name, pace, elapsed, expected) in rows {
            assert_eq!(pace.emitted(elapsed), expected, "{name}");
        }
    }
}
