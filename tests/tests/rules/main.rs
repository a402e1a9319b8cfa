//! Rules and their verdicts, compared with independent engines and with the specification of Sigma.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod detection;
mod matcher_oracles;
mod regex_oracle;
mod sigma;
mod verdicts;
