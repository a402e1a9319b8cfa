//! `etwsieve-collector cluster`: administration of a JetStream cluster.

use super::{Exit, after_writing, refuse};
use crate::config::Config;
use crate::nats::{self, NatsSettings};
use crate::pki::{Register, SENSORS_FILE};
use clap::{Args, Subcommand};
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

/// Manage a JetStream cluster
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Copy sensors.toml to the cluster, where every collector with `register` in [nats] reads it
    ///
    /// Run it after `pki issue` and `pki revoke`. A certificate that is revoked in the cluster stays revoked.
    PushRegister {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Folder with sensors.toml [default: `pki` of the configuration]
        #[arg(long, value_name = "DIR")]
        pki: Option<PathBuf>,
        /// Key-value bucket [default: `register` of the configuration, or etwsieve-sensors]
        #[arg(long, value_name = "NAME")]
        bucket: Option<String>,
    },
    /// Remove a sink that will never run again, so that hits are no longer kept for it
    ForgetSink {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the sink, as shown by `status`
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Configuration of the collector; its store and [nats] are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Cluster URL, nats://[user:password@]HOST:PORT; separate several servers with commas
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    store: Option<String>,
}

impl ClusterArgs {
    fn read(&self) -> Result<(Config, NatsSettings), Box<dyn Error>> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(store) = &self.store {
            config.store.clone_from(store);
        }
        let settings = config.nats().ok_or("the store is not a cluster; pass --store nats://HOST:PORT")?;
        Ok((config, settings))
    }
}

pub(super) fn run(command: &ClusterCommand) -> Exit {
    match carry_out(command) {
        Ok(text) => after_writing(writeln!(io::stdout(), "{text}")),
        Err(error) => refuse(error),
    }
}

fn carry_out(command: &ClusterCommand) -> Result<String, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match command {
        ClusterCommand::PushRegister { cluster, pki, bucket } => {
            let (config, mut settings) = cluster.read()?;
            let folder = pki.clone().or(config.pki).ok_or("no folder with sensors.toml; pass --pki DIR")?;
            let register = Register::read(folder.join(SENSORS_FILE))?;
            settings.register = bucket.clone().or(settings.register);
            let pushed = runtime.block_on(nats::push_register(&settings, &register))?;
            let stay = match pushed.stay_revoked {
                0 => String::new(),
                count => format!("; {count} are revoked only in the cluster and stay revoked"),
            };
            Ok(format!("{} certificates, {} written{stay}", register.entries().len(), pushed.written))
        }
        ClusterCommand::ForgetSink { cluster, name } => {
            let (_, settings) = cluster.read()?;
            if runtime.block_on(nats::forget_sink(&settings, name))? {
                Ok(format!("sink {name} removed; hits are no longer kept for it"))
            } else {
                Err(format!("the cluster has no sink {name:?}; `etwsieve-collector status` lists them")
                    .into())
            }
        }
    }
}
