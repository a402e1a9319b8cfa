//! A lock between processes that run under Wine and processes that do not.
//!
//! They do not see each other's file locks, but both can atomically create a file that does not exist.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const RETRY: Duration = Duration::from_millis(1);
/// Age of a lock that was left by a killed process. Work under the lock takes less than a millisecond.
const STALE: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock of `folder`.
    ///
    /// # Errors
    ///
    /// Errors of creating a file, and `TimedOut`.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        let path = folder.join("lock");
        let start = Instant::now();
        let mut held_since: Option<(Instant, Option<std::time::SystemTime>)> = None;
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self { path }),
                // Windows denies access to a file that is just being deleted.
                Err(error)
                    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(error),
            }
            if start.elapsed() > WAIT_MAX {
                return Err(ErrorKind::TimedOut.into());
            }
            // The age is measured with the local clock, because that of the file system may differ.
            let stamp = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
            match held_since {
                Some((since, seen)) if seen == stamp => {
                    if since.elapsed() > STALE {
                        let _ = fs::remove_file(&path);
                        held_since = None;
                    }
                }
                _ => held_since = Some((Instant::now(), stamp)),
            }
            thread::sleep(RETRY);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
