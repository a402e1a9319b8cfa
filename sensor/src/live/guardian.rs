//! The guardian decides what to do about the state of a session, which it receives every few seconds.
//!
//! It makes no system call and reads no clock, so tests cover every case on every system. `sys/windows/guardian.rs`
//! queries the session and carries out the actions.

use super::counters::LossCounts;
use super::notice::{Notice, NoticeKind};
use super::policy::Logging;
use crate::event::POWERSHELL;
use etwsieve_event::FileTime;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// How long a PowerShell host may run without any event. With script block logging, a host writes events as soon as it
/// starts.
const SILENCE: Duration = Duration::from_mins(1);
/// How often providers are enabled again although they appear to be: a query does not show whether another program has
/// changed the event filter.
const REASSERT: Duration = Duration::from_mins(5);
/// Maximum number of hosts that are monitored for missing events.
const HOSTS_MAX: usize = 4096;

/// The state of a provider at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSnapshot {
    /// The provider's GUID.
    pub id: Uuid,
    /// Ids of the processes that have it registered: running hosts.
    pub hosts: Vec<u32>,
    /// True if the provider is enabled in the sensor's session with the required parameters; `None` if no host runs,
    /// because the system does not report it then.
    pub enabled: Option<bool>,
}

/// The state of a session at one moment.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// Time of day.
    pub time: FileTime,
    /// Time since the session started.
    pub age: Duration,
    /// Losses that ETW has reported so far.
    pub losses: LossCounts,
    /// Events that the pipeline has dropped so far.
    pub dropped: u64,
    /// PowerShell events that arrived so far.
    pub events: u64,
    /// The providers about which the system reports anything.
    pub providers: Vec<ProviderSnapshot>,
    /// Script block logging of Windows PowerShell.
    pub logging: Logging,
    /// True if Protected Event Logging is on.
    pub encrypted: bool,
    /// True if at least one rule searches script blocks.
    pub script_blocks: bool,
}

/// An action for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Report this notice.
    Notice(Notice),
    /// Enable this provider, which is disabled.
    Enable(Uuid),
    /// Enable this provider again although it appears to be enabled.
    Reassert(Uuid),
}

/// Compares each snapshot with earlier ones, and remembers what it has reported.
#[derive(Debug)]
pub struct Guardian {
    report_every: Duration,
    losses: LossCounts,
    dropped: u64,
    /// Age of the session when losses were last reported.
    losses_reported_at: Option<Duration>,
    logging: Option<Logging>,
    encrypted: bool,
    /// Age of the session when the providers were last enabled again.
    reasserted_at: Duration,
    /// Hosts, with the age of the session and the number of events when each was first seen. `None` for hosts that
    /// started before the session, whose first events it could not receive.
    hosts: BTreeMap<u32, Option<(Duration, u64)>>,
    /// True once the hosts that started before the session have been recorded.
    hosts_known: bool,
    silence_reported: bool,
}

impl Guardian {
    /// Creates a guardian that reports losses at most once in `report_every`.
    pub fn new(report_every: Duration) -> Self {
        Self {
            report_every,
            losses: LossCounts::default(),
            dropped: 0,
            losses_reported_at: None,
            logging: None,
            encrypted: false,
            reasserted_at: Duration::ZERO,
            hosts: BTreeMap::new(),
            hosts_known: false,
            silence_reported: false,
        }
    }

    /// Prepares for a new session, whose counts and age start at zero.
    pub fn new_session(&mut self) {
        self.losses = LossCounts::default();
        self.losses_reported_at = None;
        self.reasserted_at = Duration::ZERO;
        self.hosts.clear();
        self.hosts_known = false;
    }

    /// Returns what to do about the state of the session.
    pub fn check(&mut self, snapshot: &SessionSnapshot) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut notify =
            |kind, detail| actions.push(Action::Notice(Notice { kind, time: snapshot.time, detail }));
        if let Some(detail) = self.new_losses(snapshot) {
            notify(NoticeKind::ConsumerBehind, detail);
        }
        if let Some(detail) = self.logging_reduced(snapshot) {
            notify(NoticeKind::LoggingOff, detail);
        }
        if snapshot.encrypted && !self.encrypted {
            notify(
                NoticeKind::EncryptedScriptBlocks,
                "Protected Event Logging is on: the text of script blocks is encrypted and cannot be searched; disable \
                 the policy, or search the events where they are decrypted"
                    .into(),
            );
        }
        self.encrypted = snapshot.encrypted;
        if let Some(detail) = self.silent_host(snapshot) {
            notify(NoticeKind::NoEvents, detail);
        }
        let mut enable = Vec::new();
        for provider in snapshot.providers.iter().filter(|provider| provider.enabled == Some(false)) {
            notify(
                NoticeKind::ProviderDisabled,
                format!(
                    "provider {} was disabled or restricted in the sensor's session; it is enabled again",
                    provider.id
                ),
            );
            enable.push(provider.id);
        }
        if snapshot.age.saturating_sub(self.reasserted_at) >= REASSERT {
            self.reasserted_at = snapshot.age;
            let others = snapshot.providers.iter().filter(|provider| provider.enabled != Some(false));
            actions.extend(others.map(|provider| Action::Reassert(provider.id)));
        }
        actions.extend(enable.into_iter().map(Action::Enable));
        actions
    }

    fn new_losses(&mut self, snapshot: &SessionSnapshot) -> Option<String> {
        let losses = &snapshot.losses;
        let grown = snapshot.dropped > self.dropped
            || losses.events > self.losses.events
            || losses.real_time_buffers > self.losses.real_time_buffers
            || losses.log_buffers > self.losses.log_buffers;
        let is_due =
            self.losses_reported_at.is_none_or(|at| snapshot.age.saturating_sub(at) >= self.report_every);
        // Losses that are not reported now are part of the difference in the next report.
        if !grown || !is_due {
            return None;
        }
        let detail = format!(
            "since the last report the sensor dropped {} events, ETW lost {} events because its buffers were full, and {} \
             real-time buffers were lost because the sensor was too slow; try more buffers (session.max_buffers), a larger \
             queue (pipeline.queue_events) or more threads (pipeline.threads)",
            snapshot.dropped - self.dropped,
            losses.events.saturating_sub(self.losses.events),
            losses.real_time_buffers.saturating_sub(self.losses.real_time_buffers),
        );
        self.losses_reported_at = Some(snapshot.age);
        self.dropped = snapshot.dropped;
        self.losses = snapshot.losses;
        Some(detail)
    }

    fn logging_reduced(&mut self, snapshot: &SessionSnapshot) -> Option<String> {
        let before = self.logging.replace(snapshot.logging);
        let detail = match (before, snapshot.logging) {
            (Some(Logging::All), Logging::SuspiciousOnly) => {
                "the policy that logs all script blocks was removed: PowerShell now logs only script blocks that it \
                 considers suspicious"
            }
            (Some(Logging::Nothing), Logging::Nothing) => return None,
            (_, Logging::Nothing) => {
                "a policy disables script block logging: PowerShell logs no script blocks"
            }
            _ => return None,
        };
        Some(detail.into())
    }

    /// Reports a new host that writes no events, once until events arrive again.
    fn silent_host(&mut self, snapshot: &SessionSnapshot) -> Option<String> {
        // Only Windows PowerShell, whose policy the snapshot has.
        let ours = || snapshot.providers.iter().filter(|provider| provider.id == POWERSHELL);
        let running = || ours().flat_map(|provider| &provider.hosts);
        let new = std::mem::replace(&mut self.hosts_known, true).then_some((snapshot.age, snapshot.events));
        self.hosts.retain(|host, _| running().any(|running| running == host));
        for host in running() {
            if self.hosts.len() < HOSTS_MAX {
                self.hosts.entry(*host).or_insert(new);
            }
        }
        let silent = self.hosts.iter().find(|(_, seen)| {
            seen.is_some_and(|(since, events)| {
                snapshot.events == events && snapshot.age.saturating_sub(since) >= SILENCE
            })
        });
        let expected = snapshot.script_blocks && snapshot.logging == Logging::All;
        let Some((host, _)) = silent.filter(|_| expected) else {
            self.silence_reported &= silent.is_some();
            return None;
        };
        let detail = format!(
            "no event has arrived since PowerShell host {host} started at least {} seconds ago, although all script blocks \
             are logged",
            SILENCE.as_secs()
        );
        (!std::mem::replace(&mut self.silence_reported, true)).then_some(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Guardian, Logging, ProviderSnapshot, SessionSnapshot};
    use crate::event::POWERSHELL;
    use crate::live::counters::LossCounts;
    use crate::live::notice::NoticeKind;
    use etwsieve_event::FileTime;
    use std::time::Duration;

    fn calm(seconds: u64) -> SessionSnapshot {
        SessionSnapshot {
            time: FileTime(1),
            age: Duration::from_secs(seconds),
            losses: LossCounts::default(),
            dropped: 0,
            events: 10,
            providers: vec![ProviderSnapshot { id: POWERSHELL, hosts: vec![], enabled: None }],
            logging: Logging::All,
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
    fn a_session_without_problems_only_enables_its_providers_again() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        for seconds in (5..300).step_by(5) {
            assert_eq!(guardian.check(&calm(seconds)), [], "{seconds}");
        }
        assert_eq!(guardian.check(&calm(300)), [Action::Reassert(POWERSHELL)]);
        assert_eq!(guardian.check(&calm(305)), []);
    }

    #[test]
    fn all_losses_are_reported_at_intervals() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let detail = |actions: Vec<Action>| match &actions[..] {
            [] => None,
            [Action::Notice(notice)] if notice.kind == NoticeKind::ConsumerBehind => {
                Some(notice.detail.clone())
            }
            other => panic!("{other:?}"),
        };
        let snapshot = |seconds, dropped, events| SessionSnapshot {
            dropped,
            losses: LossCounts { events, ..LossCounts::default() },
            ..calm(seconds)
        };
        let mut check =
            |seconds, dropped, events| detail(guardian.check(&snapshot(seconds, dropped, events)));
        assert!(check(5, 7, 0).unwrap().contains(" dropped 7 events"));
        assert!(check(10, 9, 0).is_none());
        assert!(check(60, 9, 4).is_none());
        let detail = check(65, 9, 4).unwrap();
        assert!(detail.contains(" dropped 2 events") && detail.contains("ETW lost 4 events"), "{detail}");
        assert!(check(130, 9, 4).is_none());
    }

    #[test]
    fn policies_are_reported_when_they_change() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let mut check =
            |logging, encrypted| kinds(&guardian.check(&SessionSnapshot { logging, encrypted, ..calm(5) }));
        assert_eq!(check(Logging::SuspiciousOnly, false), []);
        assert_eq!(check(Logging::Nothing, false), [NoticeKind::LoggingOff]);
        assert_eq!(check(Logging::Nothing, true), [NoticeKind::EncryptedScriptBlocks]);
        assert_eq!(check(Logging::All, true), []);
        assert_eq!(check(Logging::SuspiciousOnly, false), [NoticeKind::LoggingOff]);
        assert_eq!(check(Logging::SuspiciousOnly, true), [NoticeKind::EncryptedScriptBlocks]);
    }

    #[test]
    fn a_disabled_provider_is_reported_and_enabled_again() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let with = |enabled| SessionSnapshot {
            providers: vec![ProviderSnapshot { id: POWERSHELL, hosts: vec![4], enabled }],
            ..calm(5)
        };
        assert_eq!(guardian.check(&with(Some(true))), []);
        let actions = guardian.check(&with(Some(false)));
        assert_eq!(kinds(&actions), [NoticeKind::ProviderDisabled]);
        assert_eq!(actions.last(), Some(&Action::Enable(POWERSHELL)));
    }

    #[test]
    fn a_new_host_without_events_is_reported_once() {
        let mut guardian = Guardian::new(Duration::from_mins(1));
        let at = |seconds, hosts: &[u32], events| SessionSnapshot {
            providers: vec![ProviderSnapshot { id: POWERSHELL, hosts: hosts.to_vec(), enabled: Some(true) }],
            events,
            ..calm(seconds)
        };
        let mut check = |seconds, hosts: &[u32], events| kinds(&guardian.check(&at(seconds, hosts, events)));
        // Host 4 started before the session, so its silence is normal.
        assert_eq!(check(1, &[4], 10), []);
        assert_eq!(check(62, &[4], 10), []);
        assert_eq!(check(63, &[4, 8], 10), []);
        assert_eq!(check(122, &[4, 8], 10), []);
        assert_eq!(check(123, &[4, 8], 10), [NoticeKind::NoEvents]);
        assert_eq!(check(124, &[4, 8], 10), []);
        // Events arrive again, then another silent host starts.
        assert_eq!(check(125, &[8], 11), []);
        assert_eq!(check(130, &[8, 12], 11), []);
        assert_eq!(check(190, &[8, 12], 11), [NoticeKind::NoEvents]);
        // Hosts that have ended are ignored.
        assert_eq!(check(195, &[], 11), []);
        assert_eq!(check(280, &[], 11), []);
    }
}
