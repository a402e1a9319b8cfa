//! Windows: the event tracing session, policies and registrations. What the collector needs too, such as the life of a
//! service, is in `transport/host`.
//!
//! The only part of the sensor with unsafe code. Each file wraps a few functions of Windows in safe ones; nothing
//! of their types is seen outside.

pub mod canary;
pub mod control;
pub mod doctor;
pub mod elevation;
pub mod guardian;
pub mod live;
mod machine;
pub mod policy;
pub mod provider;
pub mod record;
pub mod recorder;
pub mod session;
pub mod source;
