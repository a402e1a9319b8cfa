//! The I/O of one connection: drives the protocol, passes frames to the committer and sends acknowledgements.

use crate::backend::{Backend, ConnectionEvent, Entry, EntryBody};
use crate::committer::{AckProgress, CommitQueue, Reservation};
use crate::counters::Counters;
use crate::heartbeats::Heartbeats;
use crate::identity::SensorIdentity;
use crate::log_limit::LogLimit;
use crate::rate::Load;
use crate::server::{Control, SensorState, ServerSettings};
use etwsieve_transport::protocol::collector::{HelloError, SensorTimeout};
use etwsieve_transport::protocol::{
    CollectorConnection, CollectorSettings, FRAME_TIMEOUT, ProtocolViolation, Request,
};
use etwsieve_transport::wire::message::{BusyReason, HelloV1, StatusV1};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout, timeout_at};

/// Maximum time that a frame may wait for room in the queue.
const ROOM_TIME: Duration = Duration::from_secs(10);
/// Maximum time that a stopping collector waits for the store before it sends BUSY.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Size of a read, in bytes.
const READ_LEN: usize = 16 << 10;
/// Work of storing one rule of a hit, in bytes written: a row with strings in two trees.
const RULE_WORK: usize = 1024;
/// Work of storing a gap, in bytes written: counting the stored hits in it.
const GAP_WORK: usize = 16 << 10;

/// Maximum number of bytes to read from a sensor while closing. Closing a socket with unread bytes resets the connection
/// and could lose the last frame sent.
const DRAIN_LEN_MAX: usize = 4 << 20;
/// Maximum time for that.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Closes a connection after the peer has received everything sent.
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

/// The reason why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// The sensor closed it.
    Closed,
    /// The collector sent BUSY.
    Busy(BusyReason),
    /// The sensor violated the protocol.
    ProtocolViolation(ProtocolViolation),
    /// The sensor did not send in time.
    Silent(SensorTimeout),
    /// The sensor did not read what was sent.
    WriteTimedOut,
    /// The network failed.
    Io(io::Error),
}

impl From<ProtocolViolation> for ConnectionEnd {
    fn from(violation: ProtocolViolation) -> Self {
        Self::ProtocolViolation(violation)
    }
}

impl From<HelloError> for ConnectionEnd {
    fn from(error: HelloError) -> Self {
        match error {
            HelloError::Violation(violation) => Self::ProtocolViolation(violation),
            HelloError::Version => Self::Busy(BusyReason::Version),
        }
    }
}

impl From<SensorTimeout> for ConnectionEnd {
    fn from(timeout: SensorTimeout) -> Self {
        Self::Silent(timeout)
    }
}

impl From<io::Error> for ConnectionEnd {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// State shared by all connections.
pub(super) struct ServerContext {
    pub(super) settings: ServerSettings,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) queue: CommitQueue,
    pub(super) heartbeats: Arc<Heartbeats>,
    /// Limits the log lines about sensors that may not connect.
    pub(super) refusals: LogLimit,
    pub(super) counters: Arc<Counters>,
}

/// A connection of an identified sensor.
pub(super) struct Connection<S> {
    server: Arc<ServerContext>,
    stream: S,
    address: SocketAddr,
    identity: SensorIdentity,
    sensor: Arc<SensorState>,
    control: watch::Receiver<Control>,
    protocol: CollectorConnection,
    /// Progress of the store with the frames of the current epoch.
    progress: Arc<AckProgress>,
    /// The backend knows that the sensor is connected.
    is_announced: bool,
}

/// Returns the time, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits for bytes and passes them to the protocol. Returns their number; 0 at the end of the stream. Cancel-safe.
async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    protocol: &mut CollectorConnection,
) -> io::Result<usize> {
    poll_fn(|context| {
        // On the stack of the poll, so that a waiting connection holds no buffer.
        let mut chunk = [MaybeUninit::uninit(); READ_LEN];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match Pin::new(&mut *stream).poll_read(context, &mut chunk) {
            Poll::Ready(Ok(())) => {
                protocol.receive(chunk.filled(), now());
                Poll::Ready(Ok(chunk.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                protocol.release_memory();
                Poll::Pending
            }
        }
    })
    .await
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
        let settings = CollectorSettings {
            window: server.settings.window,
            quiet_ms: server.settings.quiet_ms,
            hello_timeout: server.settings.hello_time,
        };
        let protocol = CollectorConnection::new(settings, now());
        let progress = Arc::default();
        Self { server, stream, address, identity, sensor, control, protocol, progress, is_announced: false }
    }

    /// Serves the sensor until the connection ends.
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
        self.check_control()?;
        loop {
            let progress = Arc::clone(&self.progress);
            let deadline = tokio::time::Instant::from_std(self.protocol.deadline());
            tokio::select! {
                () = progress.changed.notified() => self.acknowledge().await?,
                _ = self.control.changed() => self.check_control()?,
                read = timeout_at(deadline, receive(&mut self.stream, &mut self.protocol)) => match read {
                    Err(_) => self.protocol.check_timeouts(now())?,
                    Ok(Ok(0)) => return Err(ConnectionEnd::Closed),
                    Ok(Ok(_)) => self.handle_requests().await?,
                    Ok(Err(error)) => return Err(error.into()),
                },
            }
        }
    }

    async fn handle_requests(&mut self) -> Result<(), ConnectionEnd> {
        loop {
            if self.protocol.is_window_full() {
                self.acknowledge().await?;
            }
            let Some((request, len)) = self.protocol.poll(now())? else { return Ok(()) };
            match request {
                Request::Hello(hello) => {
                    if self.protocol.epoch().is_some() {
                        self.pause(Load::Control(len)).await?;
                    }
                    self.greet(hello).await?;
                }
                Request::Hit { sequence, version, bytes, rules, ack } => {
                    let item = EntryBody::Hit { sequence, version, bytes };
                    self.store(item, ack, rules * RULE_WORK, len).await?;
                }
                Request::Gap { gap, ack } => self.store(EntryBody::Gap(gap), ack, GAP_WORK, len).await?,
                Request::Status(status) => self.take_status(status, len).await?,
            }
        }
    }

    async fn greet(&mut self, hello: HelloV1) -> Result<(), ConnectionEnd> {
        self.acknowledge().await?;
        let version = self.protocol.check_hello(&hello)?;
        if let Some(reason) = self.server.queue.recent_failure() {
            return Err(ConnectionEnd::Busy(reason));
        }
        let name = Arc::clone(&self.identity.name);
        let durable = match timeout(ROOM_TIME, self.server.backend.durable(name, hello.epoch)).await {
            Ok(Ok(durable)) => durable,
            Ok(Err(error)) => return Err(ConnectionEnd::Busy(error.reason())),
            Err(_) => return Err(ConnectionEnd::Busy(BusyReason::Overload)),
        };
        self.progress = Arc::default();
        self.protocol.welcome(&hello, version, durable);
        self.flush().await?;
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

    /// Passes a frame to the committer, at the rate that the sensor may have.
    async fn store(
        &mut self,
        item: EntryBody,
        ack: u64,
        work: usize,
        len: usize,
    ) -> Result<(), ConnectionEnd> {
        let Some(epoch) = self.protocol.epoch() else { return Ok(()) };
        self.server.counters.frames.add(1);
        self.server.counters.bytes.add(len as u64);
        self.pause(Load::Entry(len, work)).await?;
        let entry = Entry { sensor: Arc::clone(&self.identity.name), epoch, item };
        self.push(entry, ack, work, len).await?;
        self.protocol.passed_to_store();
        Ok(())
    }

    /// Keeps a STATUS for the store and answers it at once with an ACK.
    async fn take_status(&mut self, status: StatusV1, len: usize) -> Result<(), ConnectionEnd> {
        if self.identity.is_expired(SystemTime::now()) {
            if let Some(suppressed) = self.server.refusals.admit() {
                tracing::warn!(
                    sensor = %self.identity.name, suppressed, "the certificate of a connected sensor has expired"
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
        let report = self.progress.report();
        self.protocol.answer_status(report).map_err(ConnectionEnd::Busy)?;
        self.flush().await
    }

    /// Waits as long as the sensor's rate limit requires, and sends acknowledgements meanwhile.
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

    /// Passes an entry to the committer as soon as there is room, and sends acknowledgements meanwhile.
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

    /// Sends acknowledgements for what the store has settled since the last call.
    async fn acknowledge(&mut self) -> Result<(), ConnectionEnd> {
        let report = self.progress.report();
        self.protocol.settle(report).map_err(ConnectionEnd::Busy)?;
        self.flush().await
    }

    /// Ends the connection if the collector stops or the sensor is no longer allowed.
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

    /// Sends BUSY. A stopping collector first acknowledges what the store is still working on, if that does not take long.
    async fn send_busy(&mut self, reason: BusyReason) -> Result<(), ConnectionEnd> {
        let deadline = tokio::time::Instant::now() + STOP_TIME;
        while reason == BusyReason::Stopping && self.protocol.unacknowledged() > 0 {
            let progress = Arc::clone(&self.progress);
            match timeout_at(deadline, progress.changed.notified()).await {
                Ok(()) => self.acknowledge().await?,
                Err(_) => break,
            }
        }
        self.server.counters.busy(reason);
        self.protocol.busy(reason, ServerSettings::retry_after_ms(reason));
        self.flush().await
    }

    /// Sends the output of the protocol.
    async fn flush(&mut self) -> Result<(), ConnectionEnd> {
        let output = self.protocol.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        };
        match timeout(FRAME_TIMEOUT, written).await {
            Ok(written) => written.map_err(ConnectionEnd::Io),
            Err(_) => Err(ConnectionEnd::WriteTimedOut),
        }
    }
}
