//! The connection of a known sensor: reads frames, passes them to the committer, sends acknowledgements.

use crate::backend::{Backend, ConnectionEvent, Entry, EntryBody};
use crate::committer::{AckProgress, AckSnapshot, CommitQueue, Reservation};
use crate::counters::Counters;
use crate::frames::FrameReader;
use crate::heartbeats::Heartbeats;
use crate::identity::SensorIdentity;
use crate::log_limit::LogLimit;
use crate::protocol::{ProtocolViolation, ReceivedFrame, SequenceTracker, interpret};
use crate::rate::Load;
use crate::server::{Control, SensorState, ServerSettings};
use etwsieve_transport::wire;
use etwsieve_transport::wire::frame::PAYLOAD_LEN_MAX;
use etwsieve_transport::wire::message::{
    AckV1, BusyReason, BusyV1, HelloV1, MESSAGE_LEN_MAX, Message, StatusV1, WelcomeV1,
};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout, timeout_at};

/// Time limit for receiving a frame, from its first byte to its last, and for sending one.
pub(super) const FRAME_TIME: Duration = Duration::from_secs(30);
/// Time that a frame may wait for room in the queue.
const ROOM_TIME: Duration = Duration::from_secs(10);
/// Time that a stopping collector waits for the store before it sends BUSY.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Maximum number of bytes that are read and discarded after a shutdown.
const DRAIN_LEN_MAX: usize = 4 << 20;
/// Time limit for reading and discarding them.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Closes a connection without losing what was sent last: closing a socket with unread bytes would reset the
/// connection.
pub(super) async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let drained = async {
        stream.shutdown().await?;
        let (mut chunk, mut drained) = ([0; 2048], 0);
        while drained < DRAIN_LEN_MAX {
            match stream.read(&mut chunk).await? {
                0 => break,
                len => drained += len,
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(DRAIN_TIME, drained).await;
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// The sensor closed it.
    Closed,
    /// The collector sent BUSY.
    Busy(BusyReason),
    /// The sensor broke the protocol.
    ProtocolViolation(ProtocolViolation),
    /// The sensor was silent, sent a frame too slowly, or did not read what the collector sent.
    TimedOut(&'static str),
    /// The network failed.
    Io(io::Error),
}

impl From<ProtocolViolation> for ConnectionEnd {
    fn from(violation: ProtocolViolation) -> Self {
        Self::ProtocolViolation(violation)
    }
}

impl From<io::Error> for ConnectionEnd {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The state that all connections share.
pub(super) struct ServerContext {
    pub(super) settings: ServerSettings,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) queue: CommitQueue,
    pub(super) heartbeats: Arc<Heartbeats>,
    /// Limits the log lines about refused sensors.
    pub(super) refusals: LogLimit,
    pub(super) counters: Arc<Counters>,
}

/// The connection of a known sensor.
pub(super) struct Connection<S> {
    server: Arc<ServerContext>,
    stream: S,
    address: SocketAddr,
    identity: SensorIdentity,
    sensor: Arc<SensorState>,
    control: watch::Receiver<Control>,
    frames: FrameReader,
    tracker: Option<SequenceTracker>,
    progress: Arc<AckProgress>,
    /// Number of frames passed to the committer in this epoch.
    queued: u64,
    /// How many of them are settled and were reported to the sensor. The others take room in the window.
    settled: u64,
    is_announced: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(
        server: Arc<ServerContext>,
        stream: S,
        address: SocketAddr,
        identity: SensorIdentity,
        sensor: Arc<SensorState>,
        control: watch::Receiver<Control>,
    ) -> Self {
        Self {
            server,
            stream,
            address,
            identity,
            sensor,
            control,
            frames: FrameReader::default(),
            tracker: None,
            progress: Arc::default(),
            queued: 0,
            settled: 0,
            is_announced: false,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) -> ConnectionEnd {
        let mut end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let ConnectionEnd::Busy(reason) = end
            && let Err(error) = self.send_busy(reason).await
        {
            tracing::debug!(sensor = %self.identity.name, ?error, "cannot send BUSY");
            end = ConnectionEnd::Busy(reason);
        }
        close(&mut self.stream).await;
        if self.is_announced {
            self.server.backend.record_connection_event(ConnectionEvent::Disconnected {
                sensor: Arc::clone(&self.identity.name),
            });
        }
        end
    }

    async fn serve(&mut self) -> Result<Infallible, ConnectionEnd> {
        let hello_deadline = tokio::time::Instant::now() + self.server.settings.hello_time;
        let quiet = Duration::from_millis(u64::from(self.server.settings.quiet_ms));
        let mut frame_began = tokio::time::Instant::now();
        self.check_control()?;
        loop {
            let heard = tokio::time::Instant::now();
            let mut waits_for_frame = self.frames.is_partial();
            loop {
                let deadline = match (&self.tracker, waits_for_frame) {
                    (None, false) => hello_deadline,
                    (None, true) => hello_deadline.min(frame_began + FRAME_TIME),
                    (Some(_), true) => frame_began + FRAME_TIME,
                    (Some(_), false) => heard + quiet,
                };
                let progress = Arc::clone(&self.progress);
                tokio::select! {
                    () = progress.changed.notified() => self.acknowledge().await?,
                    _ = self.control.changed() => self.check_control()?,
                    read = timeout_at(deadline, self.frames.fill(&mut self.stream)) => match read {
                        Err(_) if self.tracker.is_none() => return Err(ConnectionEnd::TimedOut("no HELLO in time")),
                        Err(_) if waits_for_frame => return Err(ConnectionEnd::TimedOut("incomplete frame")),
                        Err(_) => return Err(ConnectionEnd::TimedOut("no frames received")),
                        Ok(Ok(0)) => return Err(ConnectionEnd::Closed),
                        Ok(Ok(_)) => {
                            if !waits_for_frame {
                                frame_began = tokio::time::Instant::now();
                                waits_for_frame = true;
                            }
                            break;
                        }
                        Ok(Err(error)) => return Err(error.into()),
                    },
                }
            }
            if self.handle_frames().await? {
                frame_began = tokio::time::Instant::now();
            }
        }
    }

    /// Handles all complete frames and returns whether there were any.
    async fn handle_frames(&mut self) -> Result<bool, ConnectionEnd> {
        let mut any = false;
        loop {
            let data_max = if self.tracker.is_some() { PAYLOAD_LEN_MAX } else { MESSAGE_LEN_MAX };
            let Some((frame_type, payload)) = self.frames.next(data_max)? else {
                return Ok(any);
            };
            any = true;
            let len = payload.len();
            match interpret(frame_type, payload, self.tracker.as_mut())? {
                ReceivedFrame::Hello(hello) => {
                    if self.tracker.is_some() {
                        self.pause(Load::Control(len)).await?;
                    }
                    self.greet(hello).await?;
                }
                ReceivedFrame::Entry { item, ack, work } => self.queue_entry(item, ack, work, len).await?,
                ReceivedFrame::Status(status) => self.take_status(status, len).await?,
            }
        }
    }

    async fn greet(&mut self, hello: HelloV1) -> Result<(), ConnectionEnd> {
        self.acknowledge().await?;
        if self.unacknowledged() > 0 {
            return Err(ProtocolViolation::Early(self.unacknowledged()).into());
        }
        let Some(version) = hello.choose_version() else {
            return Err(ConnectionEnd::Busy(BusyReason::Version));
        };
        if let Some(reason) = self.server.queue.recent_failure() {
            return Err(ConnectionEnd::Busy(reason));
        }
        let name = Arc::clone(&self.identity.name);
        let durable = match timeout(ROOM_TIME, self.server.backend.durable(name, hello.epoch)).await {
            Ok(Ok(durable)) => durable,
            Ok(Err(error)) => return Err(ConnectionEnd::Busy(error.reason())),
            Err(_) => return Err(ConnectionEnd::Busy(BusyReason::Overload)),
        };
        let settings = &self.server.settings;
        let welcome = WelcomeV1 {
            version,
            epoch: hello.epoch,
            durable,
            window: settings.window,
            quiet_ms: settings.quiet_ms,
        };
        self.tracker = Some(SequenceTracker::of(&hello));
        // Results that arrive later belong to the old epoch and are ignored.
        self.progress = Arc::default();
        (self.queued, self.settled) = (0, 0);
        self.send(&welcome).await?;
        if !self.is_announced {
            self.is_announced = true;
            self.server.backend.record_connection_event(ConnectionEvent::Connected {
                sensor: Arc::clone(&self.identity.name),
                address: self.address,
                instance: hello.instance,
                software: hello.software,
                computer: hello.computer,
                certificate_expires: self.identity.expires,
            });
        }
        Ok(())
    }

    /// Returns the number of frames that are not acknowledged.
    fn unacknowledged(&self) -> u64 {
        self.queued - self.settled
    }

    async fn queue_entry(
        &mut self,
        item: EntryBody,
        ack: u64,
        work: usize,
        len: usize,
    ) -> Result<(), ConnectionEnd> {
        let Some(tracker) = self.tracker else {
            return Ok(());
        };
        let window = self.server.settings.window;
        if self.unacknowledged() >= u64::from(window) {
            // Frames may have been settled since the last check.
            self.acknowledge().await?;
            if self.unacknowledged() >= u64::from(window) {
                return Err(ProtocolViolation::Window(window).into());
            }
        }
        self.server.counters.frames.add(1);
        self.server.counters.bytes.add(len as u64);
        self.pause(Load::Entry(len, work)).await?;
        let entry = Entry { sensor: Arc::clone(&self.identity.name), epoch: tracker.epoch, item };
        self.push(entry, ack, work, len).await?;
        self.queued += 1;
        Ok(())
    }

    /// Queues a STATUS for the store and answers it at once with the last ACK.
    async fn take_status(&mut self, status: StatusV1, len: usize) -> Result<(), ConnectionEnd> {
        if self.identity.is_expired(SystemTime::now()) {
            if let Some(suppressed) = self.server.refusals.admit() {
                tracing::warn!(
                    sensor = %self.identity.name, suppressed, "certificate expired, closing the connection"
                );
            }
            return Err(ConnectionEnd::Busy(BusyReason::NotAllowed));
        }
        let counters = &self.server.counters;
        counters.statuses.add(1);
        counters.bytes.add(len as u64);
        if !self.server.heartbeats.put(&self.identity.name, status) {
            counters.heartbeats_dropped.add(1);
        }
        self.pause(Load::Control(len)).await?;
        self.answer(true).await
    }

    /// Pauses while the sensor exceeds its rate, and keeps sending acknowledgements.
    async fn pause(&mut self, load: Load) -> Result<(), ConnectionEnd> {
        let pause = self.sensor.take(load, Instant::now());
        if pause.is_zero() {
            return Ok(());
        }
        self.server.counters.rate_pauses.add(1);
        let until = tokio::time::Instant::now() + pause;
        loop {
            let progress = Arc::clone(&self.progress);
            tokio::select! {
                () = progress.changed.notified() => self.acknowledge().await?,
                _ = self.control.changed() => self.check_control()?,
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Passes an entry to the committer as soon as there is room, and keeps sending acknowledgements.
    async fn push(&mut self, entry: Entry, ack: u64, work: usize, len: usize) -> Result<(), ConnectionEnd> {
        let progress = Arc::clone(&self.progress);
        let queue = self.server.queue.clone();
        let share = self.sensor.share.clone();
        let room = queue.room(&share, len);
        tokio::pin!(room);
        let deadline = tokio::time::Instant::now() + ROOM_TIME;
        let room: Reservation = loop {
            tokio::select! {
                biased;
                room = timeout_at(deadline, &mut room) => match room {
                    Ok(Ok(room)) => break room,
                    Ok(Err(_)) => return Err(ConnectionEnd::Busy(BusyReason::Stopping)),
                    Err(_) => return Err(ConnectionEnd::Busy(BusyReason::Overload)),
                },
                () = progress.changed.notified() => self.acknowledge().await?,
            }
        };
        let cost = work + room.bytes();
        queue
            .push(entry, (&share, cost), &progress, ack, room)
            .map_err(|_| ConnectionEnd::Busy(BusyReason::Stopping))
    }

    /// Reports newly settled frames to the sensor, or fails if the store failed.
    async fn acknowledge(&mut self) -> Result<(), ConnectionEnd> {
        self.answer(false).await
    }

    /// Does the same as [`acknowledge`](Self::acknowledge); if `always` is set, it sends an ACK even if nothing was
    /// settled.
    async fn answer(&mut self, always: bool) -> Result<(), ConnectionEnd> {
        let AckSnapshot { settled, ack, refused } = self.progress.read();
        let is_new = settled > self.settled;
        self.settled = settled;
        for refused in refused {
            self.send(&refused).await?;
        }
        let sequence = ack.map_err(ConnectionEnd::Busy)?;
        match self.tracker {
            Some(tracker) if is_new || always => self.send(&AckV1 { epoch: tracker.epoch, sequence }).await,
            _ => Ok(()),
        }
    }

    /// Fails if the collector stops or the sensor may no longer connect.
    fn check_control(&mut self) -> Result<(), ConnectionEnd> {
        let control = self.control.borrow_and_update();
        if control.is_stopping {
            return Err(ConnectionEnd::Busy(BusyReason::Stopping));
        }
        if let Some(why) = control.allowed.refusal(&self.identity) {
            if let Some(suppressed) = self.server.refusals.admit() {
                tracing::warn!(
                    sensor = %self.identity.name, address = %self.address, suppressed, "sensor refused: {why}"
                );
            }
            return Err(ConnectionEnd::Busy(BusyReason::NotAllowed));
        }
        Ok(())
    }

    /// Sends BUSY. If the collector is stopping, frames that the store is still writing are acknowledged first.
    async fn send_busy(&mut self, reason: BusyReason) -> Result<(), ConnectionEnd> {
        let deadline = tokio::time::Instant::now() + STOP_TIME;
        while reason == BusyReason::Stopping && self.settled < self.queued {
            let progress = Arc::clone(&self.progress);
            match timeout_at(deadline, progress.changed.notified()).await {
                Ok(()) => self.acknowledge().await?,
                Err(_) => break,
            }
        }
        self.server.counters.busy(reason);
        let retry_after_ms = ServerSettings::retry_after_ms(reason);
        self.send(&BusyV1 { retry_after_ms, reason }).await
    }

    async fn send<M: Message>(&mut self, message: &M) -> Result<(), ConnectionEnd> {
        let mut frame = Vec::with_capacity(96);
        wire::encode_message(message, &mut frame)
            .map_err(|error| ConnectionEnd::Io(io::Error::other(error.to_string())))?;
        let written = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        match timeout(FRAME_TIME, written).await {
            Ok(written) => written.map_err(ConnectionEnd::Io),
            Err(_) => Err(ConnectionEnd::TimedOut("the sensor does not read")),
        }
    }
}
