//! The guardian's judgement: from what it sees of a session every few seconds to what is to be done about it.
//!
//! No call to the system and no clock of its own, so that every case is tested everywhere; the eyes and hands are
//! in `sys/windows/guardian.rs`.

use super::counters::LossCounts;
use super::notice::{Notice, NoticeKind};
use crate::event::POWERSHELL;
use etwsieve_etl::FileTime;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// How long a PowerShell host may run without any event before that is strange. Script block logging writes some
/// as soon as a host is up.
const SILENCE: Duration = Duration::from_mins(1);
/// How often providers are enabled anew although they seem to be: a filter that somebody changed cannot be seen.
const REASSERT: Duration = Duration::from_mins(5);
/// Hosts that are remembered; more are not watched for silence.
const HOSTS_MAX: usize = 4096;

/// Whether PowerShell writes script blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// All of them.
    On,
    /// Only those that PowerShell finds suspicious: no policy says more.
    SuspiciousOnly,
    /// None.
    Off,
}

/// A provider as the system describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderView {
    /// Its id.
    pub id: Uuid,
    /// Processes that have it registered now: running hosts.
    pub hosts: Vec<u32>,
    /// Whether it is enabled in our session as we want it. Without a host nobody can tell.
    pub enabled: Option<bool>,
}

/// What the guardian sees at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Time of day.
    pub time: FileTime,
    /// Time since the session started.
    pub age: Duration,
    /// What ETW lost so far.
    pub losses: LossCounts,
    /// Events that the pipeline dropped so far.
    pub dropped: u64,
    /// Selected events so far.
    pub events: u64,
    /// Both providers, where the system says something about them.
    pub providers: Vec<ProviderView>,
    /// Script block logging, of Windows PowerShell.
    pub logging: Logging,
    /// Whether Protected Event Logging is on.
    pub encrypted: bool,
    /// Whether some rule is about script blocks.
    pub script_blocks: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Report it.
    Notice(Notice),
    /// Enable this provider again: it was not.
    Enable(Uuid),
    /// Enable this provider once more, although it seems to be.
    Reassert(Uuid),
}

/// Remembers what it has seen and said.
#[derive(Debug)]
pub struct Guardian {
    report_every: Duration,
    losses: LossCounts,
    dropped: u64,
    /// Age at which losses were last reported.
    behind_told: Option<Duration>,
    logging: Option<Logging>,
    encrypted: bool,
    reasserted: Duration,
    /// Hosts, with the age and the number of events at which each was first seen.
    /// `None`: it ran before the session did, so what it wrote at its start is past.
    hosts: BTreeMap<u32, Option<(Duration, u64)>>,
    /// Whether the hosts that ran before have been noted.
    hosts_known: bool,
    silence_told: bool,
}

impl Guardian {
    /// Watches a new session. The same losses are not reported again within `report_every`.
    pub fn new(report_every: Duration) -> Self {
        Self {
            report_every,
            losses: LossCounts::default(),
            dropped: 0,
            behind_told: None,
            logging: None,
            encrypted: false,
            reasserted: Duration::ZERO,
            hosts: BTreeMap::new(),
            hosts_known: false,
            silence_told: false,
        }
    }

    /// A new session has replaced the old one; its counts and its age begin anew.
    pub fn new_session(&mut self) {
        self.losses = LossCounts::default();
        self.behind_told = None;
        self.reasserted = Duration::ZERO;
        self.hosts.clear();
        self.hosts_known = false;
    }

    /// Judges what is seen.
    pub fn look(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut tell = |kind, detail| actions.push(Action::Notice(Notice { kind, time: view.time, detail }));
        if let Some(detail) = self.behind(view) {
            tell(NoticeKind::ConsumerBehind, detail);
        }
        if let Some(detail) = self.logging_changed(view) {
            tell(NoticeKind::LoggingOff, detail);
        }
        if view.encrypted && !self.encrypted {
            tell(
                NoticeKind::EncryptedScriptBlocks,
                "Protected Event Logging is on: the text of script blocks arrives encrypted and cannot be \
                 searched. Switch the policy off, or search where it is decrypted"
                    .into(),
            );
        }
        self.encrypted = view.encrypted;
        if let Some(detail) = self.silent(view) {
            tell(NoticeKind::NoEvents, detail);
        }
        let mut enable = Vec::new();
        for provider in view.providers.iter().filter(|provider| provider.enabled == Some(false)) {
            tell(
                NoticeKind::ProviderDisabled,
                format!(
                    "provider {} was no longer enabled as the sensor wants it; it is enabled again",
                    provider.id
                ),
            );
            enable.push(provider.id);
        }
        if view.age.saturating_sub(self.reasserted) >= REASSERT {
            self.reasserted = view.age;
            let sure = view.providers.iter().filter(|provider| provider.enabled != Some(false));
            actions.extend(sure.map(|provider| Action::Reassert(provider.id)));
        }
        actions.extend(enable.into_iter().map(Action::Enable));
        actions
    }

    fn behind(&mut self, view: &View) -> Option<String> {
        let grown = view.dropped > self.dropped
            || view.losses.events > self.losses.events
            || view.losses.real_time_buffers > self.losses.real_time_buffers
            || view.losses.log_buffers > self.losses.log_buffers;
        let due = self.behind_told.is_none_or(|told| view.age.saturating_sub(told) >= self.report_every);
        // What is not told now is still there, as a difference, when the time has come.
        if !grown || !due {
            return None;
        }
        let detail = format!(
            "since the last report {} events were dropped by the sensor, {} lost by ETW for want of buffers, {} \
             real-time buffers lost because the sensor was behind. More buffers (session.max_buffers), a larger \
             queue (pipeline.queue_events) or more threads help",
            view.dropped - self.dropped,
            view.losses.events.saturating_sub(self.losses.events),
            view.losses.real_time_buffers.saturating_sub(self.losses.real_time_buffers),
        );
        self.behind_told = Some(view.age);
        self.dropped = view.dropped;
        self.losses = view.losses;
        Some(detail)
    }

    fn logging_changed(&mut self, view: &View) -> Option<String> {
        let before = self.logging.replace(view.logging);
        let detail = match (before, view.logging) {
            (Some(Logging::On), Logging::SuspiciousOnly) => {
                "the policy that logs all script blocks was removed: only those that PowerShell itself finds \
                 suspicious are written now"
            }
            (Some(Logging::Off), Logging::Off) => return None,
            (_, Logging::Off) => {
                "a policy switches script block logging off: PowerShell writes no script block at all"
            }
            _ => return None,
        };
        Some(detail.into())
    }

    /// Tells once, until events arrive again.
    fn silent(&mut self, view: &View) -> Option<String> {
        // The policy is that of Windows PowerShell.
        let ours = || view.providers.iter().filter(|provider| provider.id == POWERSHELL);
        let running = || ours().flat_map(|provider| &provider.hosts);
        let new = std::mem::replace(&mut self.hosts_known, true).then_some((view.age, view.events));
        self.hosts.retain(|host, _| running().any(|running| running == host));
        for host in running() {
            if self.hosts.len() < HOSTS_MAX {
                self.hosts.entry(*host).or_insert(new);
            }
        }
        let silent = self.hosts.iter().find(|(_, seen)| {
            seen.is_some_and(|(since, events)| {
                view.events == events && view.age.saturating_sub(since) >= SILENCE
            })
        });
        let expected = view.script_blocks && view.logging == Logging::On;
        let Some((host, _)) = silent.filter(|_| expected) else {
            self.silence_told &= silent.is_some();
            return None;
        };
        let detail = format!(
            "PowerShell host with process id {host} started {} seconds ago, all script blocks shall be logged, \
             and no event has arrived since",
            SILENCE.as_secs()
        );
        (!std::mem::replace(&mut self.silence_told, true)).then_some(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Guardian, Logging, ProviderView, View};
    use crate::event::POWERSHELL;
    use crate::live::counters::LossCounts;
    use crate::live::notice::NoticeKind;
    use etwsieve_etl::FileTime;
    use std::time::Duration;

    fn calm(seconds: u64) -> View {
        View {
            time: FileTime(1),
            age: Duration::from_secs(seconds),
            losses: LossCounts::default(),
            dropped: 0,
            events: 10,
            providers: vec![ProviderView { id: POWERSHELL, hosts: vec![], enabled: None }],
            logging: Logging::On,
            encrypted: false,
            script_blocks: true,
        }
    }

    fn kinds(actions: &[Action]) -> Vec<NoticeKind> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Notice(notice) => Some(notice.kind),
                Action::Enable(_) | Action::Reassert(_) => None,
            })
            .collect()
    }

    #[test]
    fn a_calm_session_gives_nothing_but_reassertion() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        for seconds in (5..300).step_by(5) {
            assert_eq!(guardian.look(&calm(seconds)), [], "{seconds}");
        }
        assert_eq!(guardian.look(&calm(300)), [Action::Reassert(POWERSHELL)]);
        assert_eq!(guardian.look(&calm(305)), []);
    }

    #[test]
    fn losses_are_told_at_intervals_and_none_is_forgotten() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let told = |actions: Vec<Action>| match &actions[..] {
            [] => None,
            [Action::Notice(notice)] if notice.kind == NoticeKind::ConsumerBehind => {
                Some(notice.detail.clone())
            }
            other => panic!("{other:?}"),
        };
        let view = |seconds, dropped, events| View {
            dropped,
            losses: LossCounts { events, ..LossCounts::default() },
            ..calm(seconds)
        };
        assert!(told(guardian.look(&view(5, 7, 0))).unwrap().contains(" 7 events were dropped"));
        assert!(told(guardian.look(&view(10, 9, 0))).is_none());
        assert!(told(guardian.look(&view(60, 9, 4))).is_none());
        let detail = told(guardian.look(&view(65, 9, 4))).unwrap();
        assert!(detail.contains(" 2 events were dropped") && detail.contains(" 4 lost by ETW"), "{detail}");
        assert!(told(guardian.look(&view(130, 9, 4))).is_none());
    }

    #[test]
    fn policies_are_told_when_they_change() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let mut look = |logging, encrypted| kinds(&guardian.look(&View { logging, encrypted, ..calm(5) }));
        assert_eq!(look(Logging::SuspiciousOnly, false), []);
        assert_eq!(look(Logging::Off, false), [NoticeKind::LoggingOff]);
        assert_eq!(look(Logging::Off, true), [NoticeKind::EncryptedScriptBlocks]);
        assert_eq!(look(Logging::On, true), []);
        assert_eq!(look(Logging::SuspiciousOnly, false), [NoticeKind::LoggingOff]);
        assert_eq!(look(Logging::SuspiciousOnly, true), [NoticeKind::EncryptedScriptBlocks]);
    }

    #[test]
    fn a_disabled_provider_is_told_and_enabled_again() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let with = |enabled| View {
            providers: vec![ProviderView { id: POWERSHELL, hosts: vec![4], enabled }],
            ..calm(5)
        };
        assert_eq!(guardian.look(&with(Some(true))), []);
        let actions = guardian.look(&with(Some(false)));
        assert_eq!(kinds(&actions), [NoticeKind::ProviderDisabled]);
        assert_eq!(actions.last(), Some(&Action::Enable(POWERSHELL)));
    }

    #[test]
    fn a_new_host_without_events_is_strange_once() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let at = |seconds, hosts: &[u32], events| View {
            providers: vec![ProviderView { id: POWERSHELL, hosts: hosts.to_vec(), enabled: Some(true) }],
            events,
            ..calm(seconds)
        };
        let mut look = |seconds, hosts: &[u32], events| kinds(&guardian.look(&at(seconds, hosts, events)));
        // Host 4 ran before the session and has nothing left to say.
        assert_eq!(look(1, &[4], 10), []);
        assert_eq!(look(62, &[4], 10), []);
        assert_eq!(look(63, &[4, 8], 10), []);
        assert_eq!(look(122, &[4, 8], 10), []);
        assert_eq!(look(123, &[4, 8], 10), [NoticeKind::NoEvents]);
        assert_eq!(look(124, &[4, 8], 10), []);
        // Events come again, then another silent host.
        assert_eq!(look(125, &[8], 11), []);
        assert_eq!(look(130, &[8, 12], 11), []);
        assert_eq!(look(190, &[8, 12], 11), [NoticeKind::NoEvents]);
        // Hosts that have ended are nobody's concern.
        assert_eq!(look(195, &[], 11), []);
        assert_eq!(look(280, &[], 11), []);
    }
}
