//! A library between a program and its files (`LD_PRELOAD`, Linux). For files below one folder it keeps an image of the data
//! that would survive a power loss, and makes syncs and writes fail on request. On other systems this crate is empty.
//!
//! | variable | |
//! |---|---|
//! | `ETWSIEVE_FAULT_FOLDER` | the watched folder; without it all calls pass through |
//! | `ETWSIEVE_FAULT_IMAGE` | the folder of the image: `files/`, `names`, `injected` |
//! | `ETWSIEVE_FAULT_CONTROL` | a file with the requested faults, see `control.rs`; it may be missing |
//!
//! # The model
//!
//! - The bytes and the length of a file are durable when `fsync` or `fdatasync` of that file has returned. There are no real
//!   syncs, which killed processes do not need.
//! - Names are journaled in order, as in ext4, XFS and NTFS: any sync below the folder makes earlier renames and removals
//!   durable, and a sync of a file makes its name durable.
//! - After a failed sync, earlier writes are lost, as on Linux: their pages count as clean, and a later successful sync does
//!   not write them. A new process does not know about the failure.
//! - Writes to mapped memory are not detected. SQLite uses them for its `-shm` file, which it rebuilds from the log.
//!
//! Replaced functions: `write`, `writev`, `pwrite`, `fsync`, `fdatasync`, `ftruncate`, `rename`, `unlink`, and their 64-bit twins.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "it takes the place of C functions")]

mod control;
mod exports;
mod image;
mod raw;
