//! A connection from its acceptance to its end: the handshake, who it is, and what is said of how it ended.

use super::{Connected, Control, Settings};
use crate::collector::connection::{Connection, End, Shared, close};
use crate::collector::identity::Identity;
use crate::wire;
use crate::wire::message::{BusyReason, BusyV1};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A connection whose sensor is not known yet.
pub(super) struct Guest {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
    pub(super) control: watch::Receiver<Control>,
    pub(super) connected: Arc<Connected>,
    /// There are too many: it is told so.
    pub(super) is_refused: bool,
    /// Gone once no connection is left.
    pub(super) _alive: mpsc::Sender<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.counters.connections.add(-1);
    }
}

impl Guest {
    pub(super) async fn run(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        // Frames are small and answered: nothing is gained by holding them back.
        let _ = stream.set_nodelay(true);
        let Some(config) = tls else {
            return self.meet(stream, Identity::insecure()).await;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = match timeout(self.shared.settings.handshake_time, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.shared.counters.handshakes_failed.add(1);
                tracing::info!(address = %self.address, "a TLS handshake failed: {error}");
                return;
            }
            Err(_) => {
                self.shared.counters.timed_out.add(1);
                tracing::debug!(address = %self.address, "a TLS handshake was not completed in time");
                return;
            }
        };
        match Identity::of(stream.get_ref().1.peer_certificates()) {
            Ok(identity) => self.meet(stream, identity).await,
            Err(error) => {
                self.shared.counters.not_allowed.add(1);
                tracing::warn!(address = %self.address, "a sensor is refused: {error}");
                self.refuse(stream, BusyReason::NotAllowed).await;
            }
        }
    }

    async fn meet<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, identity: Identity) {
        let name = Arc::clone(&identity.name);
        let state = if self.is_refused {
            None
        } else {
            self.connected.enter(&name, &self.shared.settings, &self.shared.queue)
        };
        let Some(state) = state else {
            tracing::debug!(sensor = %name, address = %self.address, "too many connections");
            return self.refuse(stream, BusyReason::Connections).await;
        };
        let control = self.control.clone();
        let (shared, address) = (Arc::clone(&self.shared), self.address);
        let connection = Connection::new(shared, stream, address, identity, state, control);
        // On the heap apart, so that a connection in its handshake does not hold room for all of it.
        let end = Box::pin(connection.run()).await;
        self.connected.leave(&name);
        let counters = &self.shared.counters;
        match end {
            End::Closed => tracing::debug!(sensor = %name, "the sensor has closed the connection"),
            End::Busy(reason) => {
                if reason == BusyReason::NotAllowed {
                    counters.not_allowed.add(1);
                }
                tracing::debug!(sensor = %name, ?reason, "the connection ended with BUSY");
            }
            End::Breach(breach) => {
                counters.breaches.add(1);
                tracing::warn!(sensor = %name, address = %self.address, "the connection is closed: {breach}");
            }
            End::TimedOut(what) => {
                counters.timed_out.add(1);
                tracing::info!(sensor = %name, address = %self.address, "the connection is closed: {what}");
            }
            End::Io(error) => tracing::debug!(sensor = %name, "the connection has failed: {error}"),
        }
    }

    /// Says BUSY to somebody who is not served.
    async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, reason: BusyReason) {
        self.shared.counters.busy(reason);
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
