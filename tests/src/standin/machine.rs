//! The machine: a folder whose files are the sessions that run on it.
//!
//! `sessions/NAME.json` is a [`Session`], `delivered-NAME.json` a [`Report`], `lock` exists while a session is
//! being changed, and `error.txt` contains the reason of a failure of the stand-in. Files are replaced, never written in
//! place.

use super::lock::Lock;
use super::{Report, SESSIONS_MAX, Session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
const RENAME_TRIES_MAX: u32 = 50;

/// A folder of sessions.
#[derive(Clone, Debug)]
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// Opens the machine in `folder`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// Errors of creating the folder.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(folder.join("sessions"))?;
        Ok(Self { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns all sessions, sorted by logger id.
    ///
    /// # Errors
    ///
    /// Errors of reading files.
    pub fn sessions(&self) -> io::Result<Vec<Session>> {
        let mut sessions: Vec<Session> = Vec::new();
        for entry in fs::read_dir(self.folder.join("sessions"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                sessions.extend(read(&path)?);
            }
        }
        sessions.sort_by_key(|session| session.logger_id);
        Ok(sessions)
    }

    /// Returns the session with this name.
    ///
    /// # Errors
    ///
    /// Errors of reading files.
    pub fn session(&self, name: &str) -> io::Result<Option<Session>> {
        read(&self.path(name))
    }

    /// Adds a session with a new logger id. `refuse` receives the other sessions and may refuse the new one.
    ///
    /// # Errors
    ///
    /// Errors of writing files, and the error that `refuse` returns.
    pub fn insert<E: From<io::Error>>(
        &self,
        mut session: Session,
        refuse: impl FnOnce(&[Session]) -> Result<(), E>,
    ) -> Result<Session, E> {
        let _lock = Lock::take(&self.folder)?;
        let others = self.sessions()?;
        refuse(&others)?;
        // 1 is the system logger.
        let is_free = |id: &u16| others.iter().all(|other| other.logger_id != *id);
        session.logger_id = (2..SESSIONS_MAX as u16 + 2).find(is_free).unwrap_or(u16::MAX);
        write(&self.path(&session.name), &session)?;
        Ok(session)
    }

    /// Changes a session. Returns false if no session has this name.
    ///
    /// # Errors
    ///
    /// Errors of reading and writing files.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Session)) -> io::Result<bool> {
        let _lock = Lock::take(&self.folder)?;
        let Some(mut session) = self.session(name)? else { return Ok(false) };
        change(&mut session);
        write(&self.path(name), &session)?;
        Ok(true)
    }

    /// Stops a session, as an administrator or an attacker does. Returns the session; `None` if no session has this name.
    ///
    /// The file of a session in file mode stays empty; only the program's own `ControlTraceW` writes it.
    ///
    /// # Errors
    ///
    /// Errors of reading and writing files.
    pub fn stop(&self, name: &str) -> io::Result<Option<Session>> {
        let _lock = Lock::take(&self.folder)?;
        let session = self.session(name)?;
        if session.is_some() {
            fs::remove_file(self.path(name))?;
        }
        Ok(session)
    }

    /// Disables the provider with this GUID, lower-case with hyphens. Returns false if the session does not exist.
    ///
    /// # Errors
    ///
    /// Same as [`alter`](Self::alter).
    pub fn disable(&self, name: &str, guid: &str) -> io::Result<bool> {
        self.alter(name, |session| session.providers.retain(|provider| provider.guid != guid))
    }

    /// Increases the counts of lost events and lost real-time buffers. Returns false if the session does not exist.
    ///
    /// # Errors
    ///
    /// Same as [`alter`](Self::alter).
    pub fn lose(&self, name: &str, events: u32, real_time_buffers: u32) -> io::Result<bool> {
        self.alter(name, |session| {
            session.events_lost += events;
            session.real_time_buffers_lost += real_time_buffers;
        })
    }

    /// Returns the report about the last consumer of a session.
    ///
    /// # Errors
    ///
    /// Errors of reading files.
    pub fn report(&self, name: &str) -> io::Result<Option<Report>> {
        read(&self.report_path(name))
    }

    /// Writes the report about a consumer.
    ///
    /// # Errors
    ///
    /// Errors of writing files.
    pub fn write_report(&self, name: &str, report: &Report) -> io::Result<()> {
        write(&self.report_path(name), report)
    }

    /// Records why the stand-in cannot work.
    pub fn report_failure(&self, text: &str) {
        eprintln!("etw stand-in: {text}");
        let _ = fs::write(self.folder.join("error.txt"), text);
    }

    /// Returns why the stand-in could not work; `None` if it could.
    pub fn failure(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("error.txt")).ok()
    }

    /// Waits until `accept` returns true for the session with this name.
    ///
    /// # Errors
    ///
    /// Errors of reading files; `TimedOut` after `limit`.
    pub fn wait(
        &self,
        name: &str,
        limit: Duration,
        mut accept: impl FnMut(&Session) -> bool,
    ) -> io::Result<Session> {
        poll(limit, || Ok(self.session(name)?.filter(|session| accept(session))))
    }

    /// Waits until `accept` returns true for the report of a session.
    ///
    /// # Errors
    ///
    /// Errors of reading files; `TimedOut` after `limit`.
    pub fn wait_report(
        &self,
        name: &str,
        limit: Duration,
        mut accept: impl FnMut(&Report) -> bool,
    ) -> io::Result<Report> {
        poll(limit, || Ok(self.report(name)?.filter(|report| accept(report))))
    }

    /// Waits until no session has this name.
    ///
    /// # Errors
    ///
    /// Errors of reading files; `TimedOut` after `limit`.
    pub fn wait_gone(&self, name: &str, limit: Duration) -> io::Result<()> {
        let start = Instant::now();
        while self.session(name)?.is_some() {
            if start.elapsed() > limit {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join("sessions").join(format!("{}.json", file_stem(name)))
    }

    fn report_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("delivered-{}.json", file_stem(name)))
    }
}

/// Calls `ask` repeatedly until it returns a value, for at most `limit`.
fn poll<T>(limit: Duration, mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match ask()? {
            Some(answer) => return Ok(answer),
            None if start.elapsed() > limit => return Err(ErrorKind::TimedOut.into()),
            None => thread::sleep(POLL),
        }
    }
}

/// Converts a name to a part of a file name: lower case, with all characters but letters, digits and hyphens in hexadecimal.
fn file_stem(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    };
    name.to_lowercase().bytes().map(byte).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let part = path.with_extension(format!("part{}", std::process::id()));
    fs::write(&part, serde_json::to_vec_pretty(value)?)?;
    let mut tries = 0;
    // Windows may refuse while another process reads the file.
    while let Err(error) = fs::rename(&part, path) {
        tries += 1;
        if tries > RENAME_TRIES_MAX {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Machine, file_stem};
    use crate::standin::{Enabled, Session};
    use std::io;

    #[test]
    fn sessions_are_shared_and_altered() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Machine::open(folder.path()).unwrap(), Machine::open(folder.path()).unwrap());
        let provider = Enabled { guid: "g".into(), ..Enabled::default() };
        let session = Session { name: "Sieve".into(), providers: vec![provider], ..Session::default() };
        let session = one.insert(session, |others| -> io::Result<()> {
            assert!(others.is_empty());
            Ok(())
        });
        assert_eq!(session.unwrap().logger_id, 2);
        assert!(other.lose("SIEVE", 3, 2).unwrap() && other.disable("sieve", "g").unwrap());
        let seen = one.session("Sieve").unwrap().unwrap();
        assert_eq!((seen.events_lost, seen.real_time_buffers_lost, seen.providers.len()), (3, 2, 0));
        assert!(!one.lose("another", 1, 1).unwrap());
        assert_eq!(other.stop("Sieve").unwrap().unwrap().events_lost, 3);
        assert!(one.sessions().unwrap().is_empty() && one.stop("Sieve").unwrap().is_none());
    }

    #[test]
    fn many_hands_lose_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::open(folder.path()).unwrap();
        machine
            .insert(Session { name: "s".into(), ..Session::default() }, |_| Ok::<(), io::Error>(()))
            .unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(machine.lose("s", 1, 0).unwrap())));
            }
        });
        assert_eq!(machine.session("s").unwrap().unwrap().events_lost, 200);
    }

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_stem("NT Kernel/Logger-1"), "nt_20kernel_2flogger-1");
    }
}
