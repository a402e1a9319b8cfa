//! Enabling and disabling providers.

use crate::consumer;
use crate::session;
use crate::setting::{self, Code};
use etwsieve_tests::standin::{Enabled, SESSIONS_PER_PROVIDER_MAX, Session};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, ERROR_NO_SYSTEM_RESOURCES, ERROR_WMI_INSTANCE_NOT_FOUND,
};
use windows_sys::Win32::System::Diagnostics::Etw::{
    CONTROLTRACE_HANDLE, ENABLE_TRACE_PARAMETERS, ENABLE_TRACE_PARAMETERS_VERSION,
    ENABLE_TRACE_PARAMETERS_VERSION_2, EVENT_CONTROL_CODE_CAPTURE_STATE, EVENT_CONTROL_CODE_DISABLE_PROVIDER,
    EVENT_CONTROL_CODE_ENABLE_PROVIDER, EVENT_FILTER_DESCRIPTOR, EVENT_FILTER_TYPE_EVENT_ID,
};

/// `MAX_EVENT_FILTERS_COUNT` of `evntprov.h`.
const FILTERS_MAX: u32 = 13;
/// `MAX_EVENT_FILTER_EVENT_ID_COUNT` of `evntprov.h`.
const IDS_MAX: u16 = 64;
/// Offset of the ids in an `EVENT_FILTER_EVENT_ID`, in bytes: after the direction, a reserved byte and the count.
const IDS_AT: usize = 4;

/// Implements `EnableTraceEx2`. `enabled` contains the requested parameters.
pub(crate) fn control(
    handle: CONTROLTRACE_HANDLE,
    provider: Uuid,
    code: u32,
    enabled: Enabled,
) -> Result<(), Code> {
    let machine = setting::machine()?;
    let scenario = setting::scenario(&machine)?;
    if handle.Value == 0 {
        return Err(Code(ERROR_INVALID_PARAMETER));
    }
    let gone = Code(ERROR_WMI_INSTANCE_NOT_FOUND);
    let name = session::by_handle(&machine, handle)?.ok_or(gone)?.name;
    let guid = provider.to_string();
    let is_there = match code {
        EVENT_CONTROL_CODE_DISABLE_PROVIDER => machine.disable(&name, &guid)?,
        // Requests providers to log their state; these have none.
        EVENT_CONTROL_CODE_CAPTURE_STATE => true,
        EVENT_CONTROL_CODE_ENABLE_PROVIDER => {
            if scenario.deny_enable {
                return Err(Code(ERROR_ACCESS_DENIED));
            }
            let is_other = |other: &Session| other.name != name && other.provider(&guid).is_some();
            let others = machine.sessions()?.into_iter().filter(is_other).count() as u32;
            if others + scenario.others_on(&provider) >= SESSIONS_PER_PROVIDER_MAX {
                return Err(Code(ERROR_NO_SYSTEM_RESOURCES));
            }
            machine.alter(&name, |session| {
                session.providers.retain(|provider| provider.guid != guid);
                session.providers.push(Enabled { guid: guid.clone(), ..enabled });
                if session.enabled_at == 0 {
                    session.enabled_at = setting::now();
                }
            })?
        }
        _ => return Err(Code(ERROR_INVALID_PARAMETER)),
    };
    consumer::notify();
    if is_there { Ok(()) } else { Err(gone) }
}

/// Reads the parameters, without GUID, level and keywords.
///
/// # Errors
///
/// 87 for an unknown version, too many filters, two filters of one type, or a filter whose size and count disagree.
///
/// # Safety
///
/// `parameters` is null or points to the structure of its version, whose filters are complete.
pub(crate) unsafe fn parameters(parameters: *const ENABLE_TRACE_PARAMETERS) -> Result<Enabled, Code> {
    let refused = Code(ERROR_INVALID_PARAMETER);
    let mut enabled = Enabled::default();
    if parameters.is_null() {
        return Ok(enabled);
    }
    if !parameters.is_aligned() {
        return Err(refused);
    }
    // SAFETY: both versions have this field.
    let version = unsafe { (*parameters).Version };
    // SAFETY: as before.
    enabled.property = unsafe { (*parameters).EnableProperty };
    // SAFETY: as before.
    let filters = unsafe { (*parameters).EnableFilterDesc };
    let count = match version {
        // The first version has no count.
        ENABLE_TRACE_PARAMETERS_VERSION => u32::from(!filters.is_null()),
        // SAFETY: the second version has this field.
        ENABLE_TRACE_PARAMETERS_VERSION_2 => unsafe { (*parameters).FilterDescCount },
        _ => return Err(refused),
    };
    if count > FILTERS_MAX || count > 0 && filters.is_null() {
        return Err(refused);
    }
    let mut types = Vec::new();
    for n in 0..count as usize {
        // SAFETY: the caller guarantees `count` descriptors.
        let filter = unsafe { filters.add(n).read_unaligned() };
        if types.contains(&filter.Type) {
            return Err(refused);
        }
        types.push(filter.Type);
        if filter.Type == EVENT_FILTER_TYPE_EVENT_ID {
            // SAFETY: the caller guarantees the bytes of the filter.
            (enabled.filter_in, enabled.event_ids) = unsafe { event_ids(&filter)? };
        } else {
            enabled.other_filters.push(filter.Type);
        }
    }
    Ok(enabled)
}

/// # Safety
///
/// `Ptr` is 0 or addresses `Size` bytes.
unsafe fn event_ids(filter: &EVENT_FILTER_DESCRIPTOR) -> Result<(bool, Option<Vec<u16>>), Code> {
    let refused = Code(ERROR_INVALID_PARAMETER);
    let len = filter.Size as usize;
    if filter.Ptr == 0 || len < IDS_AT || len > IDS_AT + 2 * usize::from(IDS_MAX) {
        return Err(refused);
    }
    // SAFETY: the pointer is not null, and the caller guarantees the size.
    let bytes = unsafe { std::slice::from_raw_parts(filter.Ptr as *const u8, len) };
    let [is_in, _reserved, low, high, ids @ ..] = bytes else { return Err(refused) };
    let count = usize::from(u16::from_le_bytes([*low, *high]));
    let ids = ids.as_chunks().0.get(..count).ok_or(refused)?;
    Ok((*is_in != 0, Some(ids.iter().map(|id| u16::from_le_bytes(*id)).collect())))
}
