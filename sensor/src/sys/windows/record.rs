//! Converts the `EVENT_RECORD` that ETW passes to the callback into an [`EventRef`].
//!
//! Runs in the callback: no lock, no allocation, no parsing, no panic.
#![expect(unsafe_code, reason = "an EVENT_RECORD points to its payload and to its extended data")]

use crate::event::{EventHeader, EventRef};
use crate::source::Sink;
use etwsieve_event::FileTime;
use etwsieve_event::Sid;
use ferrisetw::EventRecord;
use std::slice;
use uuid::Uuid;
use windows_sys::Win32::System::Diagnostics::Etw::{
    EVENT_HEADER_EXT_TYPE_SID, EVENT_HEADER_EXTENDED_DATA_ITEM, EVENT_RECORD,
};
use windows_sys::core::GUID;

/// Drop reason of an event that states a payload length but has no payload.
const DROPPED_NO_PAYLOAD: &str = "no_payload";

/// Maximum number of extended data items that are examined; ETW defines 18 types and repeats none.
const ITEMS_MAX: u16 = 32;

// `EventRecord` is `repr(transparent)` over the same structure from another version of the bindings.
const _: () = assert!(size_of::<EventRecord>() == 112 && size_of::<EVENT_RECORD>() == 112);
const _: () = assert!(align_of::<EventRecord>() == align_of::<EVENT_RECORD>());

/// Offers the event to the sink. Ignores a `Break` of the sink: the guardian ends the session, and the events that
/// still arrive are counted.
pub(super) fn offer(record: &EventRecord, sink: &mut dyn Sink) {
    // SAFETY: both types have the same layout, as asserted above, and the lifetime stays the same.
    let record = unsafe { &*std::ptr::from_ref(record).cast::<EVENT_RECORD>() };
    let head = &record.EventHeader;
    let provider = uuid(&head.ProviderId);
    let descriptor = &head.EventDescriptor;
    if !sink.wants(&provider, descriptor.Id) {
        let _ = sink.unwanted();
        return;
    }
    let len = usize::from(record.UserDataLength);
    let payload = if len == 0 {
        &[]
    } else if record.UserData.is_null() {
        let _ = sink.refused(DROPPED_NO_PAYLOAD);
        return;
    } else {
        // SAFETY: the pointer is not null, and ETW guarantees `UserDataLength` bytes there until the callback returns.
        unsafe { slice::from_raw_parts(record.UserData.cast::<u8>(), len) }
    };
    let activity = uuid(&head.ActivityId);
    // All bits are set if the kernel does not know the id.
    let known = |id: u32| (id != u32::MAX).then_some(id);
    let header = EventHeader {
        time: FileTime(head.TimeStamp.cast_unsigned()),
        provider,
        event_id: descriptor.Id,
        version: descriptor.Version,
        channel: descriptor.Channel,
        level: descriptor.Level,
        opcode: descriptor.Opcode,
        task: descriptor.Task,
        keywords: descriptor.Keyword,
        process_id: known(head.ProcessId),
        thread_id: known(head.ThreadId),
        activity_id: (!activity.is_nil()).then_some(activity),
        event_record_id: None,
    };
    let event = EventRef { header, user_sid: user_sid(record), computer: None, payload };
    let _ = sink.event(&event);
}

/// Returns the SID of the user; `None` if the event has no such item or the item is not a SID.
fn user_sid(record: &EVENT_RECORD) -> Option<Sid> {
    if record.ExtendedData.is_null() {
        return None;
    }
    for at in 0..record.ExtendedDataCount.min(ITEMS_MAX) {
        // SAFETY: the pointer is not null, and ETW guarantees an array of `ExtendedDataCount` items until the callback
        // returns.
        let item: &EVENT_HEADER_EXTENDED_DATA_ITEM = unsafe { &*record.ExtendedData.add(usize::from(at)) };
        if u32::from(item.ExtType) != EVENT_HEADER_EXT_TYPE_SID || item.DataPtr == 0 {
            continue;
        }
        // SAFETY: the pointer is not null, and ETW guarantees `DataSize` bytes there. The parser reads no byte beyond
        // them, also if the SID states a larger size.
        let bytes = unsafe { slice::from_raw_parts(item.DataPtr as *const u8, usize::from(item.DataSize)) };
        return Sid::from_bytes(bytes);
    }
    None
}

fn uuid(guid: &GUID) -> Uuid {
    Uuid::from_fields(guid.data1, guid.data2, guid.data3, &guid.data4)
}

#[cfg(test)]
mod tests {
    use super::{DROPPED_NO_PAYLOAD, offer};
    use crate::event::{EventRef, POWERSHELL};
    use crate::source::{Damage, Sink};
    use ferrisetw::EventRecord;
    use std::ops::ControlFlow;
    use std::ptr;
    use uuid::Uuid;
    use windows_sys::Win32::System::Diagnostics::Etw::{
        EVENT_HEADER_EXT_TYPE_SID, EVENT_HEADER_EXTENDED_DATA_ITEM, EVENT_RECORD,
    };
    use windows_sys::core::GUID;

    #[derive(Default)]
    struct Seen {
        payloads: Vec<Vec<u8>>,
        sids: Vec<Option<String>>,
        refused: Vec<&'static str>,
        unwanted: usize,
    }

    impl Sink for Seen {
        fn wants(&self, _provider: &Uuid, event_id: u16) -> bool {
            event_id == 4104
        }
        fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
            assert_eq!(event.header.provider, POWERSHELL);
            self.payloads.push(event.payload.to_vec());
            self.sids.push(event.user_sid.map(|sid| sid.to_string()));
            ControlFlow::Continue(())
        }
        fn unwanted(&mut self) -> ControlFlow<()> {
            self.unwanted += 1;
            ControlFlow::Continue(())
        }
        fn refused(&mut self, reason: &'static str) -> ControlFlow<()> {
            self.refused.push(reason);
            ControlFlow::Continue(())
        }
        fn damaged(&mut self, _damage: &Damage) {}
        fn progress(&mut self, _bytes: u64) {}
    }

    fn offer_raw(record: &EVENT_RECORD, seen: &mut Seen) {
        // SAFETY: both types have the same layout, as asserted above.
        offer(unsafe { &*ptr::from_ref(record).cast::<EventRecord>() }, seen);
    }

    #[test]
    fn malformed_records_are_delivered_or_dropped_safely() {
        let mut seen = Seen::default();
        let (data1, data2, data3, data4) = POWERSHELL.as_fields();
        let mut record = EVENT_RECORD::default();
        record.EventHeader.ProviderId = GUID { data1, data2, data3, data4: *data4 };
        offer_raw(&record, &mut seen);
        assert_eq!(seen.unwanted, 1);

        record.EventHeader.EventDescriptor.Id = 4104;
        offer_raw(&record, &mut seen);
        let mut payload = vec![7u8; 0xFFFF];
        record.UserData = payload.as_mut_ptr().cast();
        for len in [1, 7, 0xFFFF] {
            record.UserDataLength = len;
            offer_raw(&record, &mut seen);
        }
        record.UserData = ptr::null_mut();
        offer_raw(&record, &mut seen);
        let lens: Vec<usize> = seen.payloads.iter().map(Vec::len).collect();
        assert_eq!((lens, seen.refused.clone()), (vec![0, 1, 7, 0xFFFF], vec![DROPPED_NO_PAYLOAD]));

        // S-1-5-18, then items that state wrong sizes for it.
        let sid = [1u8, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
        let many = [1u8, 15, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
        let rows: [(&[u8], usize, bool, Option<&str>); 6] = [
            (&sid, 12, false, Some("S-1-5-18")),
            (&sid, 11, false, None),
            (&sid, 1, false, None),
            (&sid, 0, false, None),
            (&many, 12, false, None),
            (&sid, 12, true, None),
        ];
        record.UserDataLength = 0;
        for (bytes, size, null, expected) in rows {
            let mut items = [EVENT_HEADER_EXTENDED_DATA_ITEM::default(); 2];
            items[0].ExtType = 99;
            items[1].ExtType = EVENT_HEADER_EXT_TYPE_SID as u16;
            items[1].DataSize = size as u16;
            items[1].DataPtr = if null { 0 } else { bytes.as_ptr() as u64 };
            record.ExtendedData = items.as_mut_ptr();
            record.ExtendedDataCount = 2;
            offer_raw(&record, &mut seen);
            assert_eq!(seen.sids.last().unwrap().as_deref(), expected, "{bytes:?} {size} {null}");
        }
    }
}
