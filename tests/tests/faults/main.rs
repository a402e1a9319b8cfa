//! Sensors and collectors under faults: crashes, power losses, full disks, bad networks, hostile clients.

#![cfg(target_os = "linux")]
mod campaign;
mod certificates;
mod clients;
mod cluster;
mod sinks;
mod spool;
mod store;
