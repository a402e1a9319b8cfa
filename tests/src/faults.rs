//! The fault harness: no hit may be lost, doubled or changed by killed processes, power losses, full disks or bad networks.
//!
//! [`Programs`] are the real sensor and collector. [`Disk`] is a folder behind the fault shim, [`Proxy`] is the network,
//! [`Batch`] is sent, and [`Account`] checks what has arrived. [`run_campaign`] combines them and injects faults. All random
//! decisions come from a seed ([`Rng`]); the scheduling of processes does not.

mod account;
mod batch;
mod campaign;
pub mod client;
mod cluster;
mod cluster_campaign;
mod cluster_figures;
mod hosts;
mod ledger;
mod power;
mod programs;
mod proxy;
mod rng;

pub use account::{Account, Balance};
pub use batch::{Batch, Script, name_in};
pub use campaign::{Outcome, Plan, run as run_campaign};
pub use cluster::Cluster;
pub use cluster_campaign::{ClusterOutcome, run_cluster};
pub use cluster_figures::{ClusterFigures, measure_cluster};
pub use hosts::{Collector, Sensor, tail};
pub use ledger::Ledger;
pub use power::{Loss, lose_power, take_as_durable};
pub use programs::{Disk, PATIENCE, Programs, Running, command, free_address, listens, wait_for};
pub use proxy::{Acks, Counts, NetworkFaults, Proxy};
pub use rng::Rng;
