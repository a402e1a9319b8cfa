//! A connection from its acceptance to its end: the handshake, who it is, and what is logged of how it ended.

use super::lobby::Seat;
use super::{Connected, Control, REFUSED_MAX, Settings};
use crate::connection::{Connection, End, Shared, close};
use crate::identity::Identity;
use crate::quota::Quota;
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

/// How often each kind of line is logged that a client can cause.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    crowds: Quota,
    handshakes: Quota,
    breaches: Quota,
    silences: Quota,
}

impl Quotas {
    /// There was no place for a connection without another one leaving.
    pub(super) fn crowd(&self, address: SocketAddr, connections: usize) {
        if let Some(suppressed) = self.crowds.admit() {
            tracing::warn!(
                %address, connections, suppressed,
                "too many connections without a finished handshake; the oldest silent ones are closed"
            );
        }
    }
}

/// A connection whose sensor is not known yet.
pub(super) struct Guest {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
    pub(super) control: watch::Receiver<Control>,
    pub(super) connected: Arc<Connected>,
    pub(super) quotas: Arc<Quotas>,
    /// Gone once no connection is left.
    pub(super) _alive: mpsc::Sender<()>,
}

/// A level that goes down again when this is dropped.
struct Counted<'c>(&'c crate::counters::Level);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Frames are small and answered: nothing is gained by holding them back.
fn prepare(stream: &TcpStream) {
    // A stream that has ended refuses it, and ends anyway.
    let _ = stream.set_nodelay(true);
}

impl Guest {
    pub(super) async fn run(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>, seat: Seat) {
        prepare(&stream);
        let deadline = Instant::now() + self.shared.settings.handshake_time;
        let counters = Arc::clone(&self.shared.counters);
        counters.handshakes.add(1);
        let counted = Counted(&counters.handshakes);
        // Looked at rather than `readable`, which may be wrong.
        let mut first = [0];
        let heard = tokio::select! {
            () = seat.evicted() => return,
            heard = timeout_at(deadline, stream.peek(&mut first)) => heard,
        };
        match heard {
            Ok(Ok(1..)) => {}
            Ok(_) => {
                tracing::debug!(address = %self.address, "a connection was closed before it sent anything");
                return;
            }
            Err(_) => {
                counters.timed_out.add(1);
                tracing::debug!(address = %self.address, "a connection has sent nothing");
                return;
            }
        }
        seat.speak();
        let Some(config) = tls else {
            drop((counted, seat));
            return self.meet(stream, Identity::insecure()).await;
        };
        // On the heap, so that a connection that has sent nothing holds no room for it.
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
                if let Some(suppressed) = self.quotas.handshakes.admit() {
                    tracing::info!(address = %self.address, suppressed, "a TLS handshake failed: {error}");
                }
            }
            Err(_) => {
                counters.timed_out.add(1);
                tracing::debug!(address = %self.address, "a TLS handshake was not completed in time");
            }
        }
    }

    async fn identify(self, stream: TlsStream<TcpStream>) {
        match Identity::of(stream.get_ref().1.peer_certificates()) {
            Ok(identity) => self.meet(stream, identity).await,
            Err(error) => {
                self.shared.counters.not_allowed.add(1);
                if let Some(suppressed) = self.shared.refusals.admit() {
                    tracing::warn!(address = %self.address, suppressed, "a sensor is refused: {error}");
                }
                self.refuse(stream, BusyReason::NotAllowed).await;
            }
        }
    }

    async fn meet<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, identity: Identity) {
        let name = Arc::clone(&identity.name);
        let (settings, counters) = (&self.shared.settings, &self.shared.counters);
        if !counters.connections.enter(settings.connections_max) {
            return self.refuse(stream, BusyReason::Connections).await;
        }
        let counted = Counted(&counters.connections);
        let Some(state) = self.connected.enter(&identity, settings, &self.shared.queue) else {
            drop(counted);
            tracing::debug!(sensor = %name, address = %self.address, "too many connections");
            return self.refuse(stream, BusyReason::Connections).await;
        };
        let control = self.control.clone();
        let (shared, address) = (Arc::clone(&self.shared), self.address);
        let connection = Connection::new(shared, stream, address, identity, state, control);
        // On the heap apart, so that a connection in its handshake does not hold room for all of it.
        let end = Box::pin(connection.run()).await;
        self.connected.leave(&name);
        match end {
            End::Closed => tracing::debug!(sensor = %name, "the sensor has closed the connection"),
            End::Busy(reason) => {
                if reason == BusyReason::NotAllowed {
                    counters.not_allowed.add(1);
                }
                tracing::debug!(sensor = %name, ?reason, "the connection ended with BUSY");
            }
            End::Violation(violation) => {
                counters.breaches.add(1);
                if let Some(suppressed) = self.quotas.breaches.admit() {
                    tracing::warn!(
                        sensor = %name, address = %self.address, suppressed, "the connection is closed: {violation}"
                    );
                }
            }
            End::Silent(_) | End::WriteTimedOut => {
                let what = match end {
                    End::Silent(timeout) => timeout.to_string(),
                    _ => "the sensor does not read".to_owned(),
                };
                counters.timed_out.add(1);
                if let Some(suppressed) = self.quotas.silences.admit() {
                    tracing::info!(
                        sensor = %name, address = %self.address, suppressed, "the connection is closed: {what}"
                    );
                }
            }
            End::Io(error) => tracing::debug!(sensor = %name, "the connection has failed: {error}"),
        }
    }

    /// Says BUSY to somebody who is not served.
    async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, reason: BusyReason) {
        let counters = &self.shared.counters;
        if !counters.refusing.enter(REFUSED_MAX) {
            counters.dropped.add(1);
            return;
        }
        let _counted = Counted(&counters.refusing);
        counters.busy(reason);
        let retry_after_ms = Settings::retry_after_ms(reason);
        let mut frame = Vec::new();
        if wire::encode_message(&BusyV1 { retry_after_ms, reason }, &mut frame).is_ok() {
            let said = async {
                stream.write_all(&frame).await?;
                stream.flush().await?;
                close(&mut stream).await;
                io::Result::Ok(())
            };
            let _ = timeout(self.shared.settings.hello_time, said).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn acknowledgements_are_not_held_back() {
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
