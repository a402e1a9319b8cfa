//! Runs a connection from its acceptance to its end: TLS handshake, authentication, service, and the log of its end.

use super::pending::PendingSlot;
use super::{ConnectedSensors, Control, REFUSED_MAX, ServerSettings};
use crate::connection::{Connection, ConnectionEnd, ServerContext, close};
use crate::identity::SensorIdentity;
use crate::log_limit::LogLimit;
use etwsieve_transport::wire;
use etwsieve_transport::wire::message::{BusyReason, BusyV1};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Limits of the log lines that clients can cause.
#[derive(Debug, Default)]
pub(super) struct LogLimits {
    crowds: LogLimit,
    handshakes: LogLimit,
    violations: LogLimit,
    silences: LogLimit,
}

impl LogLimits {
    /// Logs that connections were closed because too many are in their handshake.
    pub(super) fn crowd(&self, address: SocketAddr, connections: usize) {
        if let Some(suppressed) = self.crowds.admit() {
            tracing::warn!(
                %address, connections, suppressed,
                "too many connections in their handshake, closing the oldest silent ones"
            );
        }
    }
}

/// A connection that was accepted and is not yet authenticated.
pub(super) struct Handshake {
    pub(super) server: Arc<ServerContext>,
    pub(super) address: SocketAddr,
    pub(super) control: watch::Receiver<Control>,
    pub(super) sensors: Arc<ConnectedSensors>,
    pub(super) log_limits: Arc<LogLimits>,
    /// Dropped with the connection, so that the server knows when all have ended.
    pub(super) _alive: mpsc::Sender<()>,
}

/// Decrements a gauge when dropped.
struct Counted<'c>(&'c crate::counters::Gauge);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Disables Nagle's algorithm: frames are small and wait for an answer.
fn prepare(stream: &TcpStream) {
    // This fails only for a stream that has already ended.
    let _ = stream.set_nodelay(true);
}

impl Handshake {
    pub(super) async fn run(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>, seat: PendingSlot) {
        prepare(&stream);
        let deadline = Instant::now() + self.server.settings.handshake_time;
        let counters = Arc::clone(&self.server.counters);
        counters.handshakes.add(1);
        let counted = Counted(&counters.handshakes);
        // `readable` may return although there is nothing to read.
        let mut first = [0];
        let heard = tokio::select! {
            () = seat.evicted() => return,
            heard = timeout_at(deadline, stream.peek(&mut first)) => heard,
        };
        match heard {
            Ok(Ok(1..)) => {}
            Ok(_) => {
                tracing::debug!(address = %self.address, "connection closed before it sent anything");
                return;
            }
            Err(_) => {
                counters.timed_out.add(1);
                tracing::debug!(address = %self.address, "connection closed, nothing received");
                return;
            }
        }
        seat.speak();
        let Some(config) = tls else {
            drop((counted, seat));
            return self.meet(stream, SensorIdentity::insecure()).await;
        };
        // On the heap, so that a silent connection takes no memory for it.
        let handshake = Box::pin(timeout_at(deadline, TlsAcceptor::from(config).accept(stream)));
        let shaken = tokio::select! {
            () = seat.evicted() => return,
            shaken = handshake => shaken,
        };
        drop((counted, seat));
        match shaken {
            Ok(Ok(stream)) => self.identify(stream).await,
            Ok(Err(error)) => {
                counters.handshakes_failed.add(1);
                if let Some(suppressed) = self.log_limits.handshakes.admit() {
                    tracing::info!(address = %self.address, suppressed, "TLS handshake failed: {error}");
                }
            }
            Err(_) => {
                counters.timed_out.add(1);
                tracing::debug!(address = %self.address, "TLS handshake timed out");
            }
        }
    }

    async fn identify(self, stream: TlsStream<TcpStream>) {
        match SensorIdentity::of(stream.get_ref().1.peer_certificates()) {
            Ok(identity) => self.meet(stream, identity).await,
            Err(error) => {
                self.server.counters.not_allowed.add(1);
                if let Some(suppressed) = self.server.refusals.admit() {
                    tracing::warn!(address = %self.address, suppressed, "sensor refused: {error}");
                }
                self.refuse(stream, BusyReason::NotAllowed).await;
            }
        }
    }

    async fn meet<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, identity: SensorIdentity) {
        let name = Arc::clone(&identity.name);
        let (settings, counters) = (&self.server.settings, &self.server.counters);
        if !counters.connections.enter(settings.connections_max) {
            return self.refuse(stream, BusyReason::Connections).await;
        }
        let counted = Counted(&counters.connections);
        let Some(state) = self.sensors.enter(&identity, settings, &self.server.queue) else {
            drop(counted);
            tracing::debug!(sensor = %name, address = %self.address, "sensor refused: too many connections");
            return self.refuse(stream, BusyReason::Connections).await;
        };
        let control = self.control.clone();
        let (server, address) = (Arc::clone(&self.server), self.address);
        let connection = Connection::new(server, stream, address, identity, state, control);
        // On the heap, so that a connection in its handshake takes no memory for it.
        let end = Box::pin(connection.run()).await;
        self.sensors.leave(&name);
        match end {
            ConnectionEnd::Closed => tracing::debug!(sensor = %name, "connection closed by the sensor"),
            ConnectionEnd::Busy(reason) => {
                if reason == BusyReason::NotAllowed {
                    counters.not_allowed.add(1);
                }
                tracing::debug!(sensor = %name, ?reason, "connection closed with BUSY");
            }
            ConnectionEnd::ProtocolViolation(violation) => {
                counters.violations.add(1);
                if let Some(suppressed) = self.log_limits.violations.admit() {
                    tracing::warn!(
                        sensor = %name, address = %self.address, suppressed, "connection closed, protocol violation: {violation}"
                    );
                }
            }
            ConnectionEnd::Silent(_) | ConnectionEnd::WriteTimedOut => {
                let what = match end {
                    ConnectionEnd::Silent(timeout) => timeout.to_string(),
                    _ => "the sensor does not read".to_owned(),
                };
                counters.timed_out.add(1);
                if let Some(suppressed) = self.log_limits.silences.admit() {
                    tracing::info!(
                        sensor = %name, address = %self.address, suppressed, "connection closed: {what}"
                    );
                }
            }
            ConnectionEnd::Io(error) => tracing::debug!(sensor = %name, "connection failed: {error}"),
        }
    }

    /// Sends BUSY to a client that is not served.
    async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, reason: BusyReason) {
        let counters = &self.server.counters;
        if !counters.refusing.enter(REFUSED_MAX) {
            counters.dropped.add(1);
            return;
        }
        let _counted = Counted(&counters.refusing);
        counters.busy(reason);
        let retry_after_ms = ServerSettings::retry_after_ms(reason);
        let mut frame = Vec::new();
        if wire::encode_message(&BusyV1 { retry_after_ms, reason }, &mut frame).is_ok() {
            let said = async {
                stream.write_all(&frame).await?;
                stream.flush().await?;
                close(&mut stream).await;
                io::Result::Ok(())
            };
            let _ = timeout(self.server.settings.hello_time, said).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn nagles_algorithm_is_disabled() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            prepare(&stream);
            assert!(stream.nodelay().unwrap());
        });
    }
}
