//! One connection, from the first frame to the last: reads, hands on, acknowledges.

use crate::backend::{Backend, Entry, Item, Note};
use crate::committer::{Progress, Queue, Reading, Room};
use crate::counters::Counters;
use crate::frames::Frames;
use crate::heartbeats::Heartbeats;
use crate::identity::Identity;
use crate::limits::Load;
use crate::protocol::{Breach, Numbers, Received, judge};
use crate::quota::Quota;
use crate::server::{Control, SensorState, Settings};
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

/// Time for a frame from its first byte to its last, and for a sensor to take what we send.
pub(super) const FRAME_TIME: Duration = Duration::from_secs(30);
/// How long a frame may wait for room in the queue.
const ROOM_TIME: Duration = Duration::from_secs(10);
/// How long a stopping collector waits for the store before it says BUSY.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Most bytes that are still taken from a sensor when we close, so that closing does not cut off the last word.
const DRAIN_LEN_MAX: usize = 4 << 20;
/// Longest time for that.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Closes a connection so that what was sent last arrives: a socket that is closed over unread bytes resets.
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

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The sensor has closed it.
    Closed,
    /// We have sent BUSY.
    Busy(BusyReason),
    /// The sensor broke the protocol.
    Breach(Breach),
    /// It was silent, or a frame was not complete in time, or it did not take what we sent.
    TimedOut(&'static str),
    /// The network has failed.
    Io(io::Error),
}

impl From<Breach> for End {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) queue: Queue,
    pub(super) heartbeats: Arc<Heartbeats>,
    /// Of the lines about sensors that may not connect.
    pub(super) refusals: Quota,
    pub(super) counters: Arc<Counters>,
}

/// A connection whose sensor is known.
pub(super) struct Connection<S> {
    shared: Arc<Shared>,
    stream: S,
    address: SocketAddr,
    identity: Identity,
    sensor: Arc<SensorState>,
    control: watch::Receiver<Control>,
    frames: Frames,
    numbers: Option<Numbers>,
    progress: Arc<Progress>,
    /// Frames handed to the committer in this epoch.
    handed: u64,
    /// Of these, settled ones that the sensor was told of. The others take room in the window.
    told: u64,
    is_noted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: S,
        address: SocketAddr,
        identity: Identity,
        sensor: Arc<SensorState>,
        control: watch::Receiver<Control>,
    ) -> Self {
        Self {
            shared,
            stream,
            address,
            identity,
            sensor,
            control,
            frames: Frames::default(),
            numbers: None,
            progress: Arc::default(),
            handed: 0,
            told: 0,
            is_noted: false,
        }
    }

    /// Lives until the connection ends.
    pub(super) async fn run(mut self) -> End {
        let mut end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let End::Busy(reason) = end
            && let Err(error) = self.say_busy(reason).await
        {
            tracing::debug!(sensor = %self.identity.name, ?error, "BUSY did not reach the sensor");
            end = End::Busy(reason);
        }
        close(&mut self.stream).await;
        if self.is_noted {
            self.shared.backend.note(Note::Disconnected { sensor: Arc::clone(&self.identity.name) });
        }
        end
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        let hello_deadline = tokio::time::Instant::now() + self.shared.settings.hello_time;
        let quiet = Duration::from_millis(u64::from(self.shared.settings.quiet_ms));
        let mut frame_began = tokio::time::Instant::now();
        self.check_control()?;
        loop {
            let heard = tokio::time::Instant::now();
            let mut waits_for_frame = self.frames.is_partial();
            loop {
                let deadline = match (&self.numbers, waits_for_frame) {
                    (None, false) => hello_deadline,
                    (None, true) => hello_deadline.min(frame_began + FRAME_TIME),
                    (Some(_), true) => frame_began + FRAME_TIME,
                    (Some(_), false) => heard + quiet,
                };
                let progress = Arc::clone(&self.progress);
                tokio::select! {
                    () = progress.changed.notified() => self.tell().await?,
                    _ = self.control.changed() => self.check_control()?,
                    read = timeout_at(deadline, self.frames.fill(&mut self.stream)) => match read {
                        Err(_) if self.numbers.is_none() => return Err(End::TimedOut("no HELLO")),
                        Err(_) if waits_for_frame => return Err(End::TimedOut("a frame was not completed")),
                        Err(_) => return Err(End::TimedOut("silence")),
                        Ok(Ok(0)) => return Err(End::Closed),
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

    /// Handles all complete frames; whether there was one.
    async fn handle_frames(&mut self) -> Result<bool, End> {
        let mut any = false;
        loop {
            let data_max = if self.numbers.is_some() { PAYLOAD_LEN_MAX } else { MESSAGE_LEN_MAX };
            let Some((frame_type, payload)) = self.frames.next(data_max)? else {
                return Ok(any);
            };
            any = true;
            let len = payload.len();
            match judge(frame_type, payload, self.numbers.as_mut())? {
                Received::Hello(hello) => {
                    if self.numbers.is_some() {
                        self.pause(Load::Word(len)).await?;
                    }
                    self.greet(hello).await?;
                }
                Received::Item { item, ack, work } => self.hand_on(item, ack, work, len).await?,
                Received::Status(status) => self.take_status(status, len).await?,
            }
        }
    }

    async fn greet(&mut self, hello: HelloV1) -> Result<(), End> {
        self.tell().await?;
        if self.in_window() > 0 {
            return Err(Breach::Early(self.in_window()).into());
        }
        let Some(version) = hello.choose_version() else {
            return Err(End::Busy(BusyReason::Version));
        };
        if let Some(reason) = self.shared.queue.recent_failure() {
            return Err(End::Busy(reason));
        }
        let name = Arc::clone(&self.identity.name);
        let durable = match timeout(ROOM_TIME, self.shared.backend.durable(name, hello.epoch)).await {
            Ok(Ok(durable)) => durable,
            Ok(Err(error)) => return Err(End::Busy(error.reason())),
            Err(_) => return Err(End::Busy(BusyReason::Overload)),
        };
        let settings = &self.shared.settings;
        let welcome = WelcomeV1 {
            version,
            epoch: hello.epoch,
            durable,
            window: settings.window,
            quiet_ms: settings.quiet_ms,
        };
        self.numbers = Some(Numbers::of(&hello));
        // What is still on its way belongs to the former epoch: its acknowledgement would mean nothing.
        self.progress = Arc::default();
        (self.handed, self.told) = (0, 0);
        self.send(&welcome).await?;
        if !self.is_noted {
            self.is_noted = true;
            self.shared.backend.note(Note::Connected {
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

    /// Frames without an acknowledgement.
    fn in_window(&self) -> u64 {
        self.handed - self.told
    }

    async fn hand_on(&mut self, item: Item, ack: u64, work: usize, len: usize) -> Result<(), End> {
        let Some(numbers) = self.numbers else {
            return Ok(());
        };
        let window = self.shared.settings.window;
        if self.in_window() >= u64::from(window) {
            // The sensor may have seen an ACK that is not counted here yet.
            self.tell().await?;
            if self.in_window() >= u64::from(window) {
                return Err(Breach::Window(window).into());
            }
        }
        self.shared.counters.frames.add(1);
        self.shared.counters.bytes.add(len as u64);
        self.pause(Load::Entry(len, work)).await?;
        let entry = Entry { sensor: Arc::clone(&self.identity.name), epoch: numbers.epoch, item };
        self.push(entry, ack, work, len).await?;
        self.handed += 1;
        Ok(())
    }

    /// Keeps a STATUS for the store and answers it at once, with the number acknowledged so far.
    async fn take_status(&mut self, status: StatusV1, len: usize) -> Result<(), End> {
        if self.identity.is_expired(SystemTime::now()) {
            if let Some(suppressed) = self.shared.refusals.admit() {
                tracing::warn!(
                    sensor = %self.identity.name, suppressed, "the certificate of a connected sensor has expired"
                );
            }
            return Err(End::Busy(BusyReason::NotAllowed));
        }
        let counters = &self.shared.counters;
        counters.statuses.add(1);
        counters.bytes.add(len as u64);
        if !self.shared.heartbeats.put(&self.identity.name, status) {
            counters.heartbeats_dropped.add(1);
        }
        self.pause(Load::Word(len)).await?;
        self.answer(true).await
    }

    /// Waits as long as the sensor's rate asks for, acknowledging meanwhile.
    async fn pause(&mut self, load: Load) -> Result<(), End> {
        let pause = self.sensor.take(load, Instant::now());
        if pause.is_zero() {
            return Ok(());
        }
        self.shared.counters.rate_pauses.add(1);
        let until = tokio::time::Instant::now() + pause;
        loop {
            let progress = Arc::clone(&self.progress);
            tokio::select! {
                () = progress.changed.notified() => self.tell().await?,
                _ = self.control.changed() => self.check_control()?,
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Hands an entry to the committer when there is room, acknowledging meanwhile.
    async fn push(&mut self, entry: Entry, ack: u64, work: usize, len: usize) -> Result<(), End> {
        let progress = Arc::clone(&self.progress);
        let queue = self.shared.queue.clone();
        let share = self.sensor.share.clone();
        let room = queue.room(&share, len);
        tokio::pin!(room);
        let deadline = tokio::time::Instant::now() + ROOM_TIME;
        let room: Room = loop {
            tokio::select! {
                biased;
                room = timeout_at(deadline, &mut room) => match room {
                    Ok(Ok(room)) => break room,
                    Ok(Err(_)) => return Err(End::Busy(BusyReason::Stopping)),
                    Err(_) => return Err(End::Busy(BusyReason::Overload)),
                },
                () = progress.changed.notified() => self.tell().await?,
            }
        };
        let cost = work + room.bytes();
        queue.push(entry, (&share, cost), &progress, ack, room).map_err(|_| End::Busy(BusyReason::Stopping))
    }

    /// Tells the sensor what was settled since, or that the store has failed.
    async fn tell(&mut self) -> Result<(), End> {
        self.answer(false).await
    }

    /// As [`tell`](Self::tell). `always`: with an ACK also if nothing was settled.
    async fn answer(&mut self, always: bool) -> Result<(), End> {
        let Reading { settled, ack, refused } = self.progress.read();
        let is_new = settled > self.told;
        self.told = settled;
        for refused in refused {
            self.send(&refused).await?;
        }
        let sequence = ack.map_err(End::Busy)?;
        match self.numbers {
            Some(numbers) if is_new || always => self.send(&AckV1 { epoch: numbers.epoch, sequence }).await,
            _ => Ok(()),
        }
    }

    /// Ends the connection if the collector stops, or the sensor is allowed no longer.
    fn check_control(&mut self) -> Result<(), End> {
        let control = self.control.borrow_and_update();
        if control.is_stopping {
            return Err(End::Busy(BusyReason::Stopping));
        }
        if let Some(why) = control.allowed.refusal(&self.identity) {
            if let Some(suppressed) = self.shared.refusals.admit() {
                tracing::warn!(
                    sensor = %self.identity.name, address = %self.address, suppressed, "a sensor is refused: {why}"
                );
            }
            return Err(End::Busy(BusyReason::NotAllowed));
        }
        Ok(())
    }

    /// The last word. What the store is still working on is acknowledged first, if it does not take long.
    async fn say_busy(&mut self, reason: BusyReason) -> Result<(), End> {
        let deadline = tokio::time::Instant::now() + STOP_TIME;
        while reason == BusyReason::Stopping && self.told < self.handed {
            let progress = Arc::clone(&self.progress);
            match timeout_at(deadline, progress.changed.notified()).await {
                Ok(()) => self.tell().await?,
                Err(_) => break,
            }
        }
        self.shared.counters.busy(reason);
        let retry_after_ms = Settings::retry_after_ms(reason);
        self.send(&BusyV1 { retry_after_ms, reason }).await
    }

    async fn send<M: Message>(&mut self, message: &M) -> Result<(), End> {
        let mut frame = Vec::with_capacity(96);
        wire::encode_message(message, &mut frame)
            .map_err(|error| End::Io(io::Error::other(error.to_string())))?;
        let written = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        match timeout(FRAME_TIME, written).await {
            Ok(written) => written.map_err(End::Io),
            Err(_) => Err(End::TimedOut("what we sent was not taken")),
        }
    }
}
