//! Stands between a program and its files (`LD_PRELOAD`, Linux): for files below one folder it keeps an image of what a
//! power loss would leave for certain, and makes syncs and writes fail on command. Elsewhere this crate is empty.
//!
//! | variable | |
//! |---|---|
//! | `ETWSIEVE_FAULT_FOLDER` | the folder that is watched; without it everything passes |
//! | `ETWSIEVE_FAULT_IMAGE` | where the image is kept: `files/`, `names`, `injected` |
//! | `ETWSIEVE_FAULT_CONTROL` | a file with words that are read at each call, see `control.rs`; it may be absent |
//!
//! # The model
//!
//! - A file's bytes and its length are durable when `fsync` or `fdatasync` of that file has returned. No real sync is
//!   made: a killed process does not need it.
//! - Names are journaled in order, as ext4, XFS and NTFS do: any sync below the folder makes durable the renames and
//!   removals before it, and a sync of a file its name.
//! - After a sync that failed, what was written before it is lost for good, as on Linux: the pages count as
//!   clean, and a later sync that succeeds does not bring them back. A new process does not know of that any more.
//! - Writing into a mapping is not seen. SQLite does so with its `-shm` file, which it builds anew from the log.
//!
//! Served: `write`, `writev`, `pwrite`, `fsync`, `fdatasync`, `ftruncate`, `rename`, `unlink`, and their 64-bit twins.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "it takes the place of C functions")]

mod control;
mod exports;
mod image;
mod raw;
