//! Calls the ETW API step by step, for the tests of the stand-in, and prints the result of each step.
//!
//! `etw-probe SESSION STEP...`: see `windows::Probe::step`. At the end it prints the events of the callback.

#![cfg_attr(windows, expect(unsafe_code, reason = "it calls a C interface"))]

#[cfg(windows)]
fn main() {
    windows::main();
}

#[cfg(not(windows))]
fn main() {
    eprintln!("this program is for Windows");
}

#[cfg(windows)]
mod windows {
    use std::collections::BTreeMap;
    use std::ffi::c_void;
    use std::sync::Mutex;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;
    use windows_sys::Win32::Foundation::GetLastError;
    use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;
    use windows_sys::Win32::System::Diagnostics::Etw as etw;
    use windows_sys::core::GUID;

    static POWERSHELL: GUID = GUID::from_u128(0xA0C1853B_5C40_4B15_8766_3CF1C58F985A);
    const NAME_UNITS: usize = 256;
    const SID: u16 = 2;

    /// The events of the callback.
    #[derive(Default)]
    struct Seen {
        records: u64,
        by_id: BTreeMap<u16, u64>,
        sids: u64,
        lost: Vec<u8>,
        hits: u64,
        /// Sum of all bytes, which reads each of them.
        sum: u64,
    }

    static SEEN: Mutex<Seen> =
        Mutex::new(Seen { records: 0, by_id: BTreeMap::new(), sids: 0, lost: Vec::new(), hits: 0, sum: 0 });

    #[repr(C)]
    struct Properties {
        head: etw::EVENT_TRACE_PROPERTIES,
        name: [u16; NAME_UNITS],
        file: [u16; NAME_UNITS],
    }

    impl Properties {
        fn new() -> Self {
            let mut head = etw::EVENT_TRACE_PROPERTIES::default();
            head.Wnode.BufferSize = size_of::<Self>() as u32;
            head.Wnode.Flags = etw::WNODE_FLAG_TRACED_GUID;
            head.LoggerNameOffset = std::mem::offset_of!(Self, name) as u32;
            head.BufferSize = 128;
            head.LogFileMode = etw::EVENT_TRACE_REAL_TIME_MODE;
            Self { head, name: [0; NAME_UNITS], file: [0; NAME_UNITS] }
        }
    }

    #[derive(Default)]
    pub(super) struct Probe {
        name: Vec<u16>,
        control: etw::CONTROLTRACE_HANDLE,
        trace: etw::PROCESSTRACE_HANDLE,
        processing: Option<JoinHandle<u32>>,
    }

    pub(super) fn main() {
        let mut words = std::env::args().skip(1);
        let name = words.next().unwrap_or_default();
        let mut probe = Probe { name: name.encode_utf16().chain([0]).collect(), ..Probe::default() };
        for word in words {
            let (step, value) = word.split_once('=').unwrap_or((&word, ""));
            let answer = probe.step(step, value);
            println!("{word} {answer}");
        }
        let seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("records {}", seen.records);
        println!("by_id {:?}", seen.by_id);
        println!("sids {}", seen.sids);
        println!("lost {:?}", seen.lost);
        println!("hits {}", seen.hits);
        eprintln!("sum {}", seen.sum);
    }

    impl Probe {
        /// Executes a step. Returns the Windows error code unless stated otherwise.
        pub(super) fn step(&mut self, step: &str, value: &str) -> String {
            let number = || value.parse::<u32>().unwrap_or_default();
            match step {
                "start" => self.start(|properties| {
                    if !value.is_empty() {
                        properties.head.BufferSize = number();
                    }
                }),
                "start_short" => self.start(|properties| properties.head.Wnode.BufferSize = number()),
                "start_mode" => self.start(|properties| properties.head.LogFileMode = number()),
                "start_file" => self.start(|properties| {
                    properties.head.LogFileMode = etw::EVENT_TRACE_FILE_MODE_SEQUENTIAL;
                    properties.head.LogFileNameOffset = std::mem::offset_of!(Properties, file) as u32;
                    for (to, unit) in properties.file.iter_mut().zip(value.encode_utf16()) {
                        *to = unit;
                    }
                }),
                "enable" => self.enable(etw::EVENT_CONTROL_CODE_ENABLE_PROVIDER, value, 0),
                "enable_sid" => self.enable(
                    etw::EVENT_CONTROL_CODE_ENABLE_PROVIDER,
                    value,
                    etw::EVENT_ENABLE_PROPERTY_SID,
                ),
                "enable_lying" => self.enable_lying(),
                "disable" => self.enable(etw::EVENT_CONTROL_CODE_DISABLE_PROVIDER, value, 0),
                "open" => self.open(),
                "process" => self.process(),
                "join" => match self.processing.take().map(JoinHandle::join) {
                    Some(Ok(code)) => code.to_string(),
                    other => format!("{other:?}"),
                },
                "close" => {
                    // SAFETY: a number.
                    unsafe { etw::CloseTrace(self.trace) }.to_string()
                }
                "stop" => self.control(etw::EVENT_TRACE_CONTROL_STOP, true),
                "stop_by_handle" => self.control(etw::EVENT_TRACE_CONTROL_STOP, false),
                "flush" => self.control(etw::EVENT_TRACE_CONTROL_FLUSH, true),
                "query" => self.control(etw::EVENT_TRACE_CONTROL_QUERY, true),
                "query_all" => query_all(),
                "who" => who(),
                "loggers" => loggers(),
                "sleep" => {
                    thread::sleep(Duration::from_millis(u64::from(number())));
                    String::new()
                }
                "wait_seen" => self.wait_seen(u64::from(number())),
                "wait_ctrl_c" => wait_ctrl_c(),
                "die" => std::process::abort(),
                _ => "no such step".into(),
            }
        }

        fn start(&mut self, change: impl FnOnce(&mut Properties)) -> String {
            let mut properties = Properties::new();
            change(&mut properties);
            // SAFETY: name, handle and properties are there as the function wants them.
            let code = unsafe {
                etw::StartTraceW(&raw mut self.control, self.name.as_ptr(), (&raw mut properties).cast())
            };
            code.to_string()
        }

        fn control(&self, code: u32, is_by_name: bool) -> String {
            let mut properties = Properties::new();
            let name = if is_by_name { self.name.as_ptr() } else { std::ptr::null() };
            let handle = if is_by_name { etw::CONTROLTRACE_HANDLE::default() } else { self.control };
            // SAFETY: name and properties are there as the function wants them.
            let answer = unsafe { etw::ControlTraceW(handle, name, (&raw mut properties).cast(), code) };
            let head = &properties.head;
            format!(
                "{answer} lost={}/{}/{} kb={}",
                head.EventsLost, head.RealTimeBuffersLost, head.LogBuffersLost, head.BufferSize
            )
        }

        fn enable(&self, code: u32, id: &str, property: u32) -> String {
            let [low, high] = id.parse::<u16>().unwrap_or_default().to_le_bytes();
            let ids = [1, 0, 1, 0, low, high];
            let mut filter = etw::EVENT_FILTER_DESCRIPTOR {
                Ptr: ids.as_ptr() as u64,
                Size: ids.len() as u32,
                Type: etw::EVENT_FILTER_TYPE_EVENT_ID,
            };
            let mut parameters = etw::ENABLE_TRACE_PARAMETERS {
                Version: etw::ENABLE_TRACE_PARAMETERS_VERSION_2,
                EnableProperty: property,
                ..Default::default()
            };
            if !id.is_empty() {
                (parameters.EnableFilterDesc, parameters.FilterDescCount) = (&raw mut filter, 1);
            }
            // SAFETY: filter and ids live until the call returns.
            unsafe { self.enable_with(code, &parameters) }
        }

        /// # Safety
        ///
        /// The memory that the parameters point to must be valid until the call returns.
        unsafe fn enable_with(&self, code: u32, parameters: &etw::ENABLE_TRACE_PARAMETERS) -> String {
            // SAFETY: the GUID and the parameters are references; the rest is the caller's promise.
            unsafe { etw::EnableTraceEx2(self.control, &raw const POWERSHELL, code, 5, 0, 0, 0, parameters) }
                .to_string()
        }

        /// Enables with a filter whose count exceeds its size.
        fn enable_lying(&self) -> String {
            let ids = [1_u8, 0, 9, 0, 1, 2];
            let mut filter = etw::EVENT_FILTER_DESCRIPTOR {
                Ptr: ids.as_ptr() as u64,
                Size: ids.len() as u32,
                Type: etw::EVENT_FILTER_TYPE_EVENT_ID,
            };
            let parameters = etw::ENABLE_TRACE_PARAMETERS {
                Version: etw::ENABLE_TRACE_PARAMETERS_VERSION_2,
                EnableFilterDesc: &raw mut filter,
                FilterDescCount: 1,
                ..Default::default()
            };
            let code = etw::EVENT_CONTROL_CODE_ENABLE_PROVIDER;
            // SAFETY: as in `enable`.
            unsafe { self.enable_with(code, &parameters) }
        }

        fn open(&mut self) -> String {
            let mut log_file =
                etw::EVENT_TRACE_LOGFILEW { LoggerName: self.name.as_mut_ptr(), ..Default::default() };
            log_file.Anonymous1.ProcessTraceMode =
                etw::PROCESS_TRACE_MODE_REAL_TIME | etw::PROCESS_TRACE_MODE_EVENT_RECORD;
            log_file.Anonymous2.EventRecordCallback = Some(on_record);
            log_file.Context = (&raw const SEEN).cast_mut().cast();
            // SAFETY: the structure is there, and the callback is a function.
            self.trace = unsafe { etw::OpenTraceW(&raw mut log_file) };
            // SAFETY: reads a number of this thread.
            let code = unsafe { GetLastError() };
            if self.trace.Value == u64::MAX { code } else { 0 }.to_string()
        }

        fn process(&mut self) -> String {
            let handle = self.trace.Value;
            self.processing = Some(thread::spawn(move || {
                let handle = etw::PROCESSTRACE_HANDLE { Value: handle };
                // SAFETY: one handle.
                unsafe { etw::ProcessTrace(&raw const handle, 1, std::ptr::null(), std::ptr::null()) }
            }));
            String::new()
        }

        fn wait_seen(&self, count: u64) -> String {
            for _ in 0..3000 {
                let records = SEEN.lock().map_or(0, |seen| seen.records);
                if records >= count {
                    return records.to_string();
                }
                thread::sleep(Duration::from_millis(10));
            }
            format!("never, processing: {}", self.processing.is_some())
        }
    }

    unsafe extern "system" fn on_record(record: *mut etw::EVENT_RECORD) {
        // SAFETY: the API hands over a record.
        let record = unsafe { &*record };
        let Ok(mut seen) = SEEN.lock() else { return };
        assert!(
            std::ptr::eq(record.UserContext, (&raw const SEEN).cast::<c_void>()),
            "the context comes back"
        );
        seen.records += 1;
        *seen.by_id.entry(record.EventHeader.EventDescriptor.Id).or_default() += 1;
        if record.EventHeader.Flags & 0x100 != 0 {
            seen.lost.push(record.EventHeader.EventDescriptor.Opcode);
        }
        if !record.UserData.is_null() {
            // SAFETY: the record says how long its data is.
            let data = unsafe {
                std::slice::from_raw_parts(record.UserData.cast::<u8>(), usize::from(record.UserDataLength))
            };
            seen.sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            let needle: Vec<u8> = "Enter-PSSession".encode_utf16().flat_map(u16::to_le_bytes).collect();
            seen.hits += u64::from(data.windows(needle.len()).any(|window| window == needle));
        }
        if record.ExtendedData.is_null() {
            return;
        }
        for n in 0..usize::from(record.ExtendedDataCount) {
            // SAFETY: the record counts its items.
            let item = unsafe { &*record.ExtendedData.add(n) };
            if item.DataPtr != 0 {
                // SAFETY: the item says how long its data is.
                let data = unsafe {
                    std::slice::from_raw_parts(item.DataPtr as *const u8, usize::from(item.DataSize))
                };
                seen.sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                seen.sids += u64::from(item.ExtType == SID);
            }
        }
    }

    fn query_all() -> String {
        let mut all: Vec<Properties> = (0..64).map(|_| Properties::new()).collect();
        let mut pointers: Vec<*mut etw::EVENT_TRACE_PROPERTIES> =
            all.iter_mut().map(|properties| std::ptr::from_mut(properties).cast()).collect();
        let mut count = 0;
        // SAFETY: 64 pointers to properties.
        let code = unsafe { etw::QueryAllTracesW(pointers.as_mut_ptr(), 64, &raw mut count) };
        let names = all.iter().take(count as usize).map(|properties| {
            let end = properties.name.iter().position(|unit| *unit == 0).unwrap_or(0);
            String::from_utf16_lossy(&properties.name[..end])
        });
        format!("{code} {:?}", names.collect::<Vec<_>>())
    }

    /// Returns the number of sessions that have enabled PowerShell.
    fn who() -> String {
        let mut answer = [0_u32; 64];
        let mut needed = 0;
        let room = size_of_val(&answer) as u32;
        let input = (&raw const POWERSHELL).cast();
        let output = answer.as_mut_ptr().cast();
        // SAFETY: a GUID, and room as it is said.
        let code = unsafe {
            etw::EnumerateTraceGuidsEx(etw::TraceGuidQueryInfo, input, 16, output, room, &raw mut needed)
        };
        format!("{code} sessions={} bytes={needed}", answer[3])
    }

    fn loggers() -> String {
        let mut answer = 0_u32;
        let output = (&raw mut answer).cast();
        let class = etw::TraceMaxLoggersQuery;
        // SAFETY: room for one number.
        let code = unsafe {
            etw::TraceQueryInformation(
                etw::CONTROLTRACE_HANDLE::default(),
                class,
                output,
                4,
                std::ptr::null_mut(),
            )
        };
        format!("{code} {answer}")
    }

    fn wait_ctrl_c() -> String {
        static PRESSED: Mutex<bool> = Mutex::new(false);
        unsafe extern "system" fn on_event(_kind: u32) -> i32 {
            if let Ok(mut pressed) = PRESSED.lock() {
                *pressed = true;
            }
            1
        }
        // SAFETY: the handler is a function.
        unsafe { SetConsoleCtrlHandler(Some(on_event), 1) };
        println!("ready");
        for _ in 0..3000 {
            if PRESSED.lock().is_ok_and(|pressed| *pressed) {
                return "pressed".into();
            }
            thread::sleep(Duration::from_millis(10));
        }
        "never".into()
    }
}
