//! A stand-in of the ETW API: the functions with which a program starts, controls and consumes trace sessions, for
//! tests of the live session where there is no Windows or no administrator.
//!
//! It is a DLL, `etwstub1.dll`, that takes the place of `advapi32.dll` in the import table of a copied program; all
//! else is forwarded to the real one. `etwsieve_tests::standin` makes the copy, writes the scenario and reads what
//! happened; `wine-runner` in this folder starts programs under Wine.
//!
//! # Behaviour
//!
//! Sessions belong to the *machine*, the folder named by `ETWSTANDIN_STATE`: they outlive their process and are seen by
//! every program on the same machine. A test may read and change them, as other programs may on Windows.
//!
//! * `StartTraceW`: 183 if the name or GUID is taken, 1450 with 64 sessions, 24 and 87 for properties that Windows
//!   refuses, 161 without a place for the events, 5 if the scenario denies it. Fills properties in.
//! * `EnableTraceEx2`: enable, disable, capture state; 1450 for the ninth session of a provider. Level, keywords,
//!   `EnableProperty` and the filter by event id are applied; other filters are recorded.
//! * `OpenTraceW`, `ProcessTrace`, `CloseTrace`: real-time sessions with record callbacks. `ProcessTrace` blocks until
//!   the session is stopped or the handle closed, delivers on the calling thread, and delivers what was in the buffers
//!   before it returns. `CloseTrace` meanwhile answers 7007.
//! * `ControlTraceW`: query, stop, update and flush, by handle or name; 4201 without such a session. Stopping a session
//!   in file mode writes the `.etl`.
//! * `QueryAllTracesW`, `EnumerateTraceGuidsEx` (lists of providers and who enabled them), `TraceQueryInformation` (the
//!   number of sessions).
//! * An event that does not fit into a buffer is lost and counted. Losses put a record of RT_LostEvent into the stream.
//!
//! The events start when the first provider is enabled and somebody consumes. A consumer that comes back to a surviving
//! session goes on where the last one was, give or take what passed in 20 ms. Time stamps are those of the trace.
//!
//! # Not like Windows
//!
//! No privileges, no buffers of a fixed number (a slow consumer delays events, it loses none but by the scenario), no
//! buffer callback, no raw time stamps, no reading of files, one session per `ProcessTrace`. File mode writes the file
//! at the end.
//!
//! # Scenario
//!
//! A text named by `ETWSTANDIN_SCENARIO`; without it nothing is ever emitted. One directive per line, `#` begins a
//! comment. `after=N`: when N events of the scenario have been emitted, filtered ones included.
//!
//! | directive | meaning |
//! |---|---|
//! | `trace PATH` | the events of a recorded trace that have manifest headers, in time order |
//! | `synthetic count=N units=250 every=1000 event_id=4104` | N script blocks of so many UTF-16 units; every 1000th holds `Enter-PSSession -ComputerName srv` |
//! | `repeat N` | goes through the source N times |
//! | `rate N` | N events per second; 0, the default, is as fast as they are taken |
//! | `burst N every_ms=M` | N events at once every M ms |
//! | `hold N` | the newest N events are handed over by a flush or the stop only |
//! | `events_lost after=N count=1` | raises EventsLost, RT_LostEvent opcode 32 |
//! | `buffers_lost after=N count=1` | raises RealTimeBuffersLost, RT_LostEvent opcode 33 |
//! | `log_buffers_lost after=N count=1` | raises LogBuffersLost, RT_LostEvent opcode 34 |
//! | `hostile after=0 kind=NAME` | a hostile record, or one of each kind: see `etwsieve_tests::standin::hostile` |
//! | `stop_session after=N` | somebody stops the session |
//! | `disable_provider after=N guid=GUID` | somebody disables this provider of the session, or all |
//! | `deny_start`, `deny_enable`, `deny_open`, `deny_query` | error 5 |
//! | `no_session_left`, `other_sessions N` | 64, or N, sessions of others |
//! | `provider_full guid=GUID`, `sessions_on_provider N guid=GUID` | 8, or N, others have enabled this provider, or any |
//! | `end stay` | nothing: after the last event the session goes on, always |
//!
//! # Report
//!
//! `delivered-SESSION.json` in the folder of the machine says what was delivered, by event id, and how long the
//! callback took: see `etwsieve_tests::standin::Report`.

#![cfg_attr(windows, expect(unsafe_code, reason = "it serves a C interface"))]

#[cfg(windows)]
mod consumer;
#[cfg(windows)]
mod deliver;
#[cfg(windows)]
mod enable;
#[cfg(windows)]
mod exports;
#[cfg(windows)]
mod guard;
#[cfg(windows)]
mod process;
#[cfg(windows)]
mod properties;
#[cfg(windows)]
mod query;
#[cfg(windows)]
mod session;
#[cfg(windows)]
mod setting;
#[cfg(windows)]
mod wide;
