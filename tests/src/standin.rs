//! A stand-in of the ETW API for tests of the live session: the part that every operating system can build.
//!
//! The stand-in itself is the DLL `etwstub1.dll` of the crate `etwsieve-etw-standin`, whose documentation says how it
//! behaves. An unmodified Windows program is copied, the import of `advapi32.dll` is renamed in the copy, and the DLL is
//! placed beside it. DLL, tests and program share a folder, the *machine*, in which sessions outlive their processes.
//!
//! ```no_run
//! use etwsieve_tests::standin::Host;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let Some(host) = Host::find() else { return Ok(()) };
//! let lab = host.lab("synthetic count=1000 units=250 every=100\nstop_session after=1000\n")?;
//! let run = lab.command("etwsieve", ["watch"])?.output()?;
//! println!("{}", String::from_utf8_lossy(&run.stdout));
//! let report = lab.machine().report("etwsieve")?.expect("a session was consumed");
//! assert_eq!(report.delivered_total, 1000);
//! lab.machine().wait_gone("etwsieve", Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

pub mod feed;
pub mod hostile;
pub mod imports;

mod host;
mod lock;
mod log_file;
mod machine;
mod report;
mod scenario;
mod session;
mod synthetic;

pub use host::{Host, Lab, interrupt, windows_path};
pub use log_file::write_log_file;
pub use machine::Machine;
pub use report::{Ending, Report};
pub use scenario::{Incident, IncidentKind, Pace, Scenario, ScenarioError, Source};
pub use session::{Enabled, ITEM_PROPERTIES, Session};
pub use synthetic::Synthetic;

/// Environment variable with the folder of the machine, as the Windows program sees it.
pub const STATE_VARIABLE: &str = "ETWSTANDIN_STATE";
/// Environment variable with the path of the scenario, as the Windows program sees it. Without it no event is emitted.
pub const SCENARIO_VARIABLE: &str = "ETWSTANDIN_SCENARIO";
/// File name of the DLL, as long as `advapi32.dll`.
pub const DLL: &str = "etwstub1.dll";
/// Maximum number of sessions on a machine.
pub const SESSIONS_MAX: usize = 64;
/// Maximum number of sessions that enable one provider.
pub const SESSIONS_PER_PROVIDER_MAX: u32 = 8;
