//! The `.etl` reader on recorded, synthetic, damaged and hostile traces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changing;
mod damage;
mod kinds;
mod lies;
mod oracle;
mod walk;
mod work;
