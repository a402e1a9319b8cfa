//! Builds records of events and passes them to the callback.

use crate::consumer::Consumer;
use crate::guard::Guarded;
use crate::setting::Code;
use crate::wide;
use etwsieve_event::provider::LOST_EVENT;
use etwsieve_tests::standin::feed::{Emitted, Facts, POWERSHELL};
use etwsieve_tests::standin::hostile::{Hostile, Items, UserData};
use etwsieve_tests::standin::{Enabled, Report};
use std::ffi::c_void;
use std::ptr::null_mut;
use uuid::{Uuid, uuid};
use windows_sys::Win32::System::Diagnostics::Etw::{
    EVENT_HEADER_EXTENDED_DATA_ITEM, EVENT_HEADER_FLAG_32_BIT_HEADER, EVENT_HEADER_FLAG_64_BIT_HEADER,
    EVENT_HEADER_FLAG_CLASSIC_HEADER, EVENT_HEADER_FLAG_EXTENDED_INFO, EVENT_RECORD,
};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

const HEADER_LEN: usize = 0x50;
/// Number of pairs of readings that measure the cost of reading the clock.
const CLOCK_PAIRS: i64 = 1000;
/// Activity of hostile records.
const FOREIGN: Uuid = uuid!("00000bad-0000-4000-8000-000000000bad");

// Layout of these structures on x86-64.
const _: () = assert!(size_of::<EVENT_RECORD>() == 112);
const _: () = assert!(size_of::<EVENT_HEADER_EXTENDED_DATA_ITEM>() == 16);

/// Kinds of loss, as opcodes of RT_LostEvent.
#[derive(Clone, Copy)]
pub(crate) enum Lost {
    Event = 32,
    Buffer = 33,
    File = 34,
}

/// Calls the callback of a consumer and counts records.
pub(crate) struct Delivery<'a> {
    consumer: &'a Consumer,
    logger_id: u16,
    items: Vec<EVENT_HEADER_EXTENDED_DATA_ITEM>,
    callback_ticks: i64,
    ticks_per_second: i64,
    pub(crate) report: Report,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(consumer: &'a Consumer, logger_id: u16) -> Self {
        let mut ticks_per_second = 0;
        // SAFETY: the pointer is that of a local.
        unsafe { QueryPerformanceFrequency(&raw mut ticks_per_second) };
        let mut this = Self {
            consumer,
            logger_id,
            items: Vec::new(),
            callback_ticks: 0,
            ticks_per_second: ticks_per_second.max(1),
            report: Report::default(),
        };
        let cost: i64 = (0..CLOCK_PAIRS).map(|_| -ticks() + ticks()).sum();
        this.report.clock_ns = this.nanoseconds(cost) / CLOCK_PAIRS as u64;
        this
    }

    /// Delivers an event that `provider` admits.
    pub(crate) fn event(&mut self, event: &Emitted<'_>, provider: &Enabled) {
        self.items.clear();
        for (kind, data) in event.items().filter(|(kind, _)| provider.carries(*kind)) {
            self.items.push(item(kind, data.len() as u16, data.as_ptr().cast_mut().cast()));
        }
        let mut record = self.record(event.facts);
        record.UserDataLength = event.payload.len() as u16;
        record.UserData = event.payload.as_ptr().cast_mut().cast();
        record.EventHeader.Size = event.stored_len() as u16;
        if !self.items.is_empty() {
            record.EventHeader.Flags |= EVENT_HEADER_FLAG_EXTENDED_INFO as u16;
            record.ExtendedDataCount = self.items.len() as u16;
            record.ExtendedData = self.items.as_mut_ptr();
        }
        self.call(&mut record);
    }

    /// Delivers a record of RT_LostEvent.
    pub(crate) fn lost(&mut self, lost: Lost, time: i64) {
        let mut record = EVENT_RECORD::default();
        record.EventHeader.Size = HEADER_LEN as u16;
        record.EventHeader.Flags =
            (EVENT_HEADER_FLAG_CLASSIC_HEADER | EVENT_HEADER_FLAG_64_BIT_HEADER) as u16;
        record.EventHeader.TimeStamp = time;
        (record.EventHeader.ProcessId, record.EventHeader.ThreadId) = (u32::MAX, u32::MAX);
        record.EventHeader.ProviderId = wide::guid(&LOST_EVENT);
        record.EventHeader.EventDescriptor.Opcode = lost as u8;
        record.BufferContext.LoggerId = self.logger_id;
        self.report.lost_records += 1;
        self.call(&mut record);
    }

    /// Delivers a hostile record, whose time stamp is near `time`.
    pub(crate) fn hostile(&mut self, kind: Hostile, facts: &Facts, time: i64) -> Result<(), Code> {
        let mut record = self.record(facts);
        let header = &mut record.EventHeader;
        header.TimeStamp = time;
        header.ProviderId = wide::guid(&POWERSHELL);
        match kind {
            Hostile::AllOnes => {
                (header.ProcessId, header.ThreadId, header.TimeStamp) = (u32::MAX, u32::MAX, -1);
            }
            Hostile::TimeZero => header.TimeStamp = 0,
            Hostile::TimeMax => header.TimeStamp = i64::MAX,
            Hostile::UnknownVersion => header.EventDescriptor.Version = u8::MAX,
            Hostile::UnknownEvent => header.EventDescriptor.Id = u16::MAX,
            Hostile::ForeignProvider => header.ProviderId = wide::guid(&FOREIGN),
            Hostile::ItemsNone => header.Flags |= EVENT_HEADER_FLAG_EXTENDED_INFO as u16,
            _ => {}
        }
        let user_data;
        match kind.user_data() {
            UserData::Null(len) => record.UserDataLength = len,
            UserData::Bytes(bytes) => {
                user_data = Guarded::new(&bytes, kind == Hostile::Unaligned)?;
                record.UserDataLength = bytes.len() as u16;
                record.UserData = user_data.as_ptr();
            }
        }
        let (mut data, mut items) = (Vec::new(), Vec::new());
        match kind.items() {
            Items::Null(count) => {
                record.ExtendedDataCount = count;
                record.EventHeader.Flags |= EVENT_HEADER_FLAG_EXTENDED_INFO as u16;
            }
            Items::Some(given) if given.is_empty() => {}
            Items::Some(given) => {
                for (item_type, len, bytes) in given {
                    let guarded = bytes.map(|bytes| Guarded::new(&bytes, false)).transpose()?;
                    items.push(item(item_type, len, guarded.as_ref().map_or(null_mut(), Guarded::as_ptr)));
                    data.extend(guarded);
                }
                record.ExtendedDataCount = items.len() as u16;
                record.ExtendedData = items.as_mut_ptr();
                record.EventHeader.Flags |= EVENT_HEADER_FLAG_EXTENDED_INFO as u16;
            }
        }
        self.call(&mut record);
        Ok(())
    }

    /// Time in the callback for the report.
    pub(crate) fn callback_ns(&self) -> u64 {
        self.nanoseconds(self.callback_ticks)
    }

    fn nanoseconds(&self, ticks: i64) -> u64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.ticks_per_second)).max(0) as u64
    }

    fn record(&self, facts: &Facts) -> EVENT_RECORD {
        let mut record = EVENT_RECORD::default();
        let header = &mut record.EventHeader;
        let width =
            if facts.is_32_bit { EVENT_HEADER_FLAG_32_BIT_HEADER } else { EVENT_HEADER_FLAG_64_BIT_HEADER };
        (header.Flags, header.EventProperty) = (width as u16, facts.property);
        (header.ThreadId, header.ProcessId) = (facts.thread_id, facts.process_id);
        header.TimeStamp = facts.time.0.cast_signed();
        header.ProviderId = wide::guid(&facts.provider);
        let descriptor = &mut header.EventDescriptor;
        (descriptor.Id, descriptor.Version, descriptor.Channel) =
            (facts.event_id, facts.version, facts.channel);
        (descriptor.Level, descriptor.Opcode, descriptor.Task) = (facts.level, facts.opcode, facts.task);
        descriptor.Keyword = facts.keywords;
        header.ActivityId = wide::guid(&facts.activity_id);
        record.BufferContext.Anonymous.ProcessorIndex = facts.processor;
        record.BufferContext.LoggerId = self.logger_id;
        record
    }

    fn call(&mut self, record: &mut EVENT_RECORD) {
        record.UserContext = self.consumer.context as *mut c_void;
        let before = ticks();
        // SAFETY: the caller of `open` has guaranteed that the callback may be called with its context on this thread. The
        // memory that the record points to lives until the call returns.
        unsafe { (self.consumer.callback)(record) };
        self.callback_ticks += ticks() - before;
        self.report.delivered_total += 1;
        *self.report.delivered.entry(record.EventHeader.EventDescriptor.Id).or_default() += 1;
    }
}

fn item(kind: u16, len: u16, data: *mut c_void) -> EVENT_HEADER_EXTENDED_DATA_ITEM {
    EVENT_HEADER_EXTENDED_DATA_ITEM {
        ExtType: kind,
        DataSize: len,
        DataPtr: data as u64,
        ..Default::default()
    }
}

fn ticks() -> i64 {
    let mut ticks = 0;
    // SAFETY: the pointer is that of a local.
    unsafe { QueryPerformanceCounter(&raw mut ticks) };
    ticks
}
