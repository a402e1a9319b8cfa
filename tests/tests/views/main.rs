//! Detections beyond a single event as recorded: joined script blocks, normalised text, and the spans of hits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod block_shards;
mod blocks;
mod spans;
mod work;
