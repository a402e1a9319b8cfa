//! The requested faults: words in a file that is read at each call.
//!
//! | word | |
//! |---|---|
//! | `sync=eio` | syncs fail |
//! | `sync=eio-once:N` | the next sync fails; with another `N` one more fails |
//! | `sync=ignored` | syncs succeed and make nothing durable: the negative control |
//! | `write=enospc`, `write=eio` | writes fail |
//! | `die=N` | the process kills itself in the middle of its `N`th sync |

use libc::c_int;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The result of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sync {
    #[default]
    Works,
    Fails,
    Ignored,
}

/// The current faults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    pub(crate) sync: Sync,
    /// The error of writes.
    pub(crate) write: Option<c_int>,
    /// Number of the sync in which to die, from 1.
    pub(crate) die: Option<u64>,
}

impl Control {
    /// Reads the file. Unknown words are ignored, so a partly written file does no harm.
    pub(crate) fn read(path: Option<&Path>, is_sync: bool) -> Self {
        static CONSUMED: AtomicU64 = AtomicU64::new(0);
        let mut control = Self::default();
        let Some(text) = path.and_then(|path| fs::read_to_string(path).ok()) else { return control };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("sync", "eio")) => control.sync = Sync::Fails,
                Some(("sync", "ignored")) => control.sync = Sync::Ignored,
                Some(("sync", once)) => {
                    let number = once.strip_prefix("eio-once:").and_then(|number| number.parse().ok());
                    if let Some(number) = number
                        && is_sync
                        && CONSUMED.swap(number, Ordering::Relaxed) != number
                    {
                        control.sync = Sync::Fails;
                    }
                }
                Some(("write", "enospc")) => control.write = Some(libc::ENOSPC),
                Some(("write", "eio")) => control.write = Some(libc::EIO),
                Some(("die", number)) => control.die = number.parse().ok(),
                _ => {}
            }
        }
        control
    }
}
