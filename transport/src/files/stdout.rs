//! Standard output whose reader may stop reading.

use super::pipe::{STOP_TICK, stopped};
use crate::stop::Stop;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of unfinished writes of the thread.
const PENDING_MAX: usize = 4;
/// Time that the reader has after a stop to take the next bytes.
const READER_GRACE: Duration = Duration::from_secs(1);

/// Standard output, written by a separate thread, because a write to a pipe blocks until the pipe is read and cannot be
/// interrupted. After a stop, a write that the reader does not take within a second fails with an error for which
/// [`is_stopped`](super::is_stopped) returns true.
pub struct PatientStdout {
    writes: Sender<Vec<u8>>,
    results: Receiver<io::Result<()>>,
    pending: usize,
    /// Set when the reader took nothing after a stop. Further writes fail at once.
    has_timed_out: bool,
    stop: Stop,
}

impl PatientStdout {
    /// Writes to standard output until `stop` is requested, and afterwards while the output is being read.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread.
    pub fn new(stop: Stop) -> io::Result<Self> {
        let (writes, incoming) = channel::<Vec<u8>>();
        let (outcomes, results) = channel();
        thread::Builder::new().name("stdout".into()).spawn(move || {
            for bytes in incoming {
                let mut out = io::stdout().lock();
                let written = out.write_all(&bytes).and_then(|()| out.flush());
                if outcomes.send(written).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { writes, results, pending: 0, has_timed_out: false, stop })
    }

    /// Waits until the oldest unfinished write is done.
    fn wait(&mut self) -> io::Result<()> {
        let mut stopped_at = None;
        while !self.has_timed_out {
            match self.results.recv_timeout(STOP_TICK) {
                Ok(written) => {
                    self.pending -= 1;
                    return written;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("its thread ended")),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.has_timed_out = self.stop.requested()
                && stopped_at.get_or_insert_with(Instant::now).elapsed() >= READER_GRACE;
        }
        Err(stopped())
    }
}

impl Write for PatientStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending >= PENDING_MAX || self.has_timed_out {
            self.wait()?;
        }
        self.writes.send(bytes.to_vec()).map_err(|_| io::Error::other("its thread ended"))?;
        self.pending += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.pending > 0 {
            self.wait()?;
        }
        Ok(())
    }
}
