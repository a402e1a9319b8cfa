//! `etwsieve-collector serve`.

use super::{Exit, ServeArgs, log, refuse};
use crate::config::Config;
use crate::counters::Counters;
use crate::files::check_outputs;
use crate::nats::NatsBackend;
use crate::server::Server;
use crate::sink::Feed;
use crate::sink::SinkSet;
use crate::sqlite::SqliteBackend;
use crate::sqlite::SqliteFeed;
use etwsieve_transport::metrics;
use etwsieve_transport::stop::Stop;
use etwsieve_transport::store::StoreError;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time limit for stopping the sinks, shorter than that of service managers.
const SINKS_STOP_TIME: Duration = Duration::from_secs(10);

/// Adds the state of the streams to a scrape.
type RenderStreams = Box<dyn Fn(&mut metrics::Text) + Send + Sync>;

pub(super) fn run(args: &ServeArgs) -> Exit {
    let config = match configured(args) {
        Ok(config) => config,
        Err(error) => return refuse(error),
    };
    log(&config.log.level);
    match until_stopped(&config, args.unsafe_ack_before_sync, stop_signal) {
        Ok(()) => Exit::Complete,
        Err(error) => refuse(error),
    }
}

/// Serves until the future that `stop` returns completes. `stop` is called within the runtime.
pub(super) fn until_stopped<S: Future<Output = ()>>(
    config: &Config,
    ack_before_sync: bool,
    stop: impl FnOnce() -> io::Result<S>,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    runtime.block_on(async { serve(config, ack_before_sync, stop()?).await })
}

fn configured(args: &ServeArgs) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config.listen = args.listen.unwrap_or(config.listen);
    config.metrics.listen = args.metrics.or(config.metrics.listen);
    if let Some(store) = &args.store {
        config.store.clone_from(store);
        if store.contains("://") && config.nats().is_none() {
            return Err(
                format!("invalid value {store:?} for --store: expected a file or nats://HOST:PORT").into()
            );
        }
    }
    // Authentication options replace those of the file as a whole.
    if args.pki.is_some() || args.insecure_loopback {
        config.pki.clone_from(&args.pki);
        config.insecure_loopback = args.insecure_loopback;
    }
    config.security()?;
    check_outputs(&config, args.config.as_deref())?;
    Ok(config)
}

async fn serve(
    config: &Config,
    ack_before_sync: bool,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let security = config.security()?;
    let counters = Arc::new(Counters::default());
    let mut settings = config.settings();
    settings.ack_before_sync = ack_before_sync;
    if ack_before_sync {
        tracing::warn!("hits are acknowledged before they are synced, so acknowledged hits can be lost");
    }
    let (listen, for_server) = (config.listen, Arc::clone(&counters));
    tokio::pin!(stop);
    let mut render_streams: Option<RenderStreams> = None;
    let (server, sinks) = if let Some(nats) = config.nats() {
        if !config.sink.is_empty() {
            tracing::info!("sinks are not started: with JetStream, `etwsieve-collector drain` runs them");
        }
        // The cluster may start later than this program.
        let backend = tokio::select! {
            backend = NatsBackend::connect(&nats) => Arc::new(backend?),
            () = &mut stop => return Ok(()),
        };
        settings.issued = backend.follow_register(&nats).await?;
        render_streams = Some(Box::new(backend.renderer()));
        (Server::start(listen, &security, settings, backend, for_server).await?, SinkSet::default())
    } else {
        let path = Path::new(&config.store);
        let backend = Arc::new(SqliteBackend::start(path, config.options(), Arc::clone(&counters))?);
        let server = Server::start(listen, &security, settings, backend, for_server).await?;
        let sinks = SinkSet::start(&config.sink, &config.folder, false, Stop::default(), |name| {
            let feed = SqliteFeed::open(path, name, Arc::clone(&counters))?;
            Ok::<Box<dyn Feed>, StoreError>(Box::new(feed))
        })?;
        (server, sinks)
    };
    let overview = sinks.overview();
    let _metrics = match config.metrics.listen {
        Some(addr) => {
            let (counters, overview) = (Arc::clone(&counters), overview.clone());
            let render: metrics::Render = Arc::new(move || {
                let mut text = metrics::Text::new();
                counters.render(&mut text);
                overview.render(&mut text);
                if let Some(render) = &render_streams {
                    render(&mut text);
                }
                text.finish()
            });
            let server = metrics::Server::start(addr, render)
                .map_err(|error| format!("cannot serve metrics on {addr}: {error}"))?;
            tracing::info!("metrics on http://{}/metrics", server.local_addr());
            Some(server)
        }
        None => None,
    };
    // Scripts that use port 0 read the port from here.
    let _ = writeln!(io::stdout(), "listening on {}", server.local_addr());
    // The URL of a cluster may contain a password.
    let store = if config.nats().is_some() { "nats" } else { config.store.as_str() };
    tracing::info!(store, "listening on {}", server.local_addr());
    stop.await;
    tracing::info!("stopping");
    server.stop().await;
    // After the server, so that its last hits may still be delivered.
    tokio::task::spawn_blocking(move || sinks.stop(SINKS_STOP_TIME)).await?;
    overview.log();
    tracing::info!(
        hits = counters.hits.get(),
        repeated = counters.repeated.get(),
        conflicts = counters.conflicts.get(),
        lost = counters.lost.get(),
        "stopped"
    );
    Ok(())
}

/// Returns a future that completes on SIGINT or SIGTERM.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Returns a future that completes on Ctrl-C, Ctrl-Break, or when the console closes or the system shuts down.
#[cfg(windows)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let (mut c, mut pause, mut close, mut end) = (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    Ok(async move {
        tokio::select! {
            _ = c.recv() => {}
            _ = pause.recv() => {}
            _ = close.recv() => {}
            _ = end.recv() => {}
        }
    })
}
