//! Reads Windows event traces (`.etl`) on any operating system.

pub mod time;

pub use time::FileTime;
