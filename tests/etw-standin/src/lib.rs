//! A stand-in of the ETW API: the functions to start, control and consume trace sessions, for tests of the live session
//! without Windows or without administrator rights.
//!
//! It is a DLL, `etwstub1.dll`, that replaces `advapi32.dll` in the import table of a copied program and forwards all other
//! functions to the real one. `etwsieve_tests::standin` makes the copy, writes the scenario and reads the report;
//! `wine-runner` in this folder starts programs under Wine.
//!
//! # Behaviour
//!
//! Sessions belong to the *machine*, the folder in `ETWSTANDIN_STATE`: they outlive their process and are visible to every
//! program on the same machine. A test may read and change them, as other programs may on Windows.
//!
//! * `StartTraceW`: fails with 183 if the name or GUID is in use, 1450 with 64 sessions, 24 and 87 for properties that
//!   Windows rejects, 161 without a destination for the events, and 5 if the scenario denies it. Fills in properties.
//! * `EnableTraceEx2`: enable, disable, capture state; fails with 1450 for the ninth session of a provider. Level, keywords,
//!   `EnableProperty` and the filter by event id are applied; other filters are only recorded.
//! * `OpenTraceW`, `ProcessTrace`, `CloseTrace`: real-time sessions with record callbacks. `ProcessTrace` blocks until
//!   the session is stopped or the handle is closed. It delivers on the calling thread, and delivers buffered events before
//!   it returns. Until then, `CloseTrace` returns 7007.
//! * `ControlTraceW`: query, stop, update and flush, by handle or name; fails with 4201 if the session does not exist.
//!   Stopping a session in file mode writes the `.etl`.
//! * `QueryAllTracesW`, `EnumerateTraceGuidsEx` (lists of providers and of the sessions that enabled them), `TraceQueryInformation` (the
//!   number of sessions).
//! * An event that does not fit into a buffer is lost and counted. Losses add a record of RT_LostEvent to the stream.
//!
//! Events start when the first provider is enabled and the session has a consumer. A consumer of a surviving session
//! continues at the position of the previous one, with an error of up to 20 ms. Time stamps are those of the trace.
//!
//! # Differences from Windows
//!
//! There are no privileges, no limited number of buffers (a slow consumer delays events and loses only those that the
//! scenario says), no buffer callback, no raw time stamps, no reading of files, and only one session per `ProcessTrace`. In
//! file mode the file is written at the end.
//!
//! # Scenario
//!
//! The file in `ETWSTANDIN_SCENARIO`; without it no event is emitted. It has one directive per line, and `#` starts a
//! comment. `after=N` means after N events of the scenario, including filtered ones.
//!
//! | directive | meaning |
//! |---|---|
//! | `trace PATH` | the events of a recorded trace that have manifest headers, in time order |
//! | `synthetic count=N units=250 every=1000 event_id=4104` | N script blocks of this many UTF-16 units; every 1000th contains `Enter-PSSession -ComputerName srv` |
//! | `repeat N` | emits the events of the source N times |
//! | `rate N` | N events per second; 0, the default, is as fast as the consumer |
//! | `burst N every_ms=M` | N events at once every M ms |
//! | `hold N` | the newest N events are delivered only by a flush or the stop |
//! | `events_lost after=N count=1` | raises EventsLost, RT_LostEvent opcode 32 |
//! | `buffers_lost after=N count=1` | raises RealTimeBuffersLost, RT_LostEvent opcode 33 |
//! | `log_buffers_lost after=N count=1` | raises LogBuffersLost, RT_LostEvent opcode 34 |
//! | `hostile after=0 kind=NAME` | a hostile record, or one of each kind: see `etwsieve_tests::standin::hostile` |
//! | `stop_session after=N` | another program stops the session |
//! | `disable_provider after=N guid=GUID` | another program disables this provider of the session, or all |
//! | `deny_start`, `deny_enable`, `deny_open`, `deny_query` | error 5 |
//! | `no_session_left`, `other_sessions N` | 64, or N, sessions of other programs |
//! | `provider_full guid=GUID`, `sessions_on_provider N guid=GUID` | 8, or N, other sessions have enabled this provider, or each provider |
//! | `end stay` | no effect: the session always continues after the last event |
//!
//! # Report
//!
//! `delivered-SESSION.json` in the folder of the machine counts the delivered records by event id, and contains the time of
//! the callback: see `etwsieve_tests::standin::Report`.

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
