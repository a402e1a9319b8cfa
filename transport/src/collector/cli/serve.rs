//! `etwsieve-collector serve`.

use super::{Exit, ServeArgs, log, refuse};
use crate::collector::config::Config;
use crate::collector::counters::Counters;
use crate::collector::nats::{Nats, NatsSettings};
use crate::collector::server::Server;
use crate::collector::sqlite::SqliteBackend;
use crate::metrics;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

pub(super) fn run(args: &ServeArgs) -> Exit {
    let config = match configured(args) {
        Ok(config) => config,
        Err(error) => return refuse(error),
    };
    log(&config.log.level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(format_args!("cannot start threads: {error}")),
    };
    match runtime.block_on(serve(&config, args.unsafe_ack_before_sync)) {
        Ok(()) => Exit::Complete,
        Err(error) => refuse(error),
    }
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
    }
    // A word on the command line about who may connect replaces that of the file.
    if args.pki.is_some() || args.insecure_loopback {
        config.pki.clone_from(&args.pki);
        config.insecure_loopback = args.insecure_loopback;
    }
    config.security()?;
    Ok(config)
}

async fn serve(config: &Config, ack_before_sync: bool) -> Result<(), Box<dyn std::error::Error>> {
    let security = config.security()?;
    let counters = Arc::new(Counters::default());
    let is_nats = config.store.starts_with("nats://") || config.store.starts_with("tls://");
    if config.store.contains("://") && !is_nats {
        return Err("the store is neither a file nor nats://HOST:PORT".into());
    }
    let mut settings = config.settings();
    settings.ack_before_sync = ack_before_sync;
    if ack_before_sync {
        tracing::warn!("hits are acknowledged before they are synced: what is acknowledged can be lost");
    }
    let stop = stop_signal()?;
    let server = if is_nats {
        let backend = Arc::new(Nats::connect(&NatsSettings::for_url(&config.store)).await?);
        Server::start(config.listen, &security, settings, backend, Arc::clone(&counters)).await?
    } else {
        let path = Path::new(&config.store);
        let backend = Arc::new(SqliteBackend::start(path, config.options(), Arc::clone(&counters))?);
        Server::start(config.listen, &security, settings, backend, Arc::clone(&counters)).await?
    };
    let _metrics = match config.metrics.listen {
        Some(addr) => {
            let counters = Arc::clone(&counters);
            let render: metrics::Render = Arc::new(move || counters.render());
            let server = metrics::Server::start(addr, render)
                .map_err(|error| format!("cannot serve metrics on {addr}: {error}"))?;
            tracing::info!("metrics on http://{}/metrics", server.local_addr());
            Some(server)
        }
        None => None,
    };
    // Scripts that asked for port 0 read it here.
    let _ = writeln!(io::stdout(), "listening on {}", server.local_addr());
    // The URL of a cluster may hold a password.
    let store = if is_nats { "nats" } else { config.store.as_str() };
    tracing::info!(store, "listening on {}", server.local_addr());
    stop.await;
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!(
        hits = counters.hits.get(),
        repeated = counters.repeated.get(),
        conflicts = counters.conflicts.get(),
        lost = counters.lost.get(),
        "stopped"
    );
    Ok(())
}

/// Ends with Ctrl-C or a termination signal.
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

/// Ends with Ctrl-C, Ctrl-Break, or when the console closes or the system ends.
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
