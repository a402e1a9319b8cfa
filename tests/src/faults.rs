//! What must not lose, double or change a hit: killed processes, power losses, full disks, bad networks.
//!
//! [`Programs`] are the real ones. [`Disk`] is a folder with the fault shim before it, [`Proxy`] the network,
//! [`Batch`] what is sent, [`Account`] what must have arrived; [`run_campaign`] puts them together and lets things go
//! wrong. Everything random comes from a seed ([`Rng`]); what the scheduler makes of it does not.

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
