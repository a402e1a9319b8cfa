//! Payloads of the PowerShell provider: UTF-16LE strings with a final NUL, behind little-endian integers.

/// Text that can be written as UTF-16, also such that no `str` can hold (half a surrogate pair).
pub trait ToUtf16 {
    /// The UTF-16 units, without a final NUL.
    fn to_utf16(&self) -> Vec<u16>;
}

impl ToUtf16 for str {
    fn to_utf16(&self) -> Vec<u16> {
        self.encode_utf16().collect()
    }
}

impl ToUtf16 for [u16] {
    fn to_utf16(&self) -> Vec<u16> {
        self.to_vec()
    }
}

impl ToUtf16 for String {
    fn to_utf16(&self) -> Vec<u16> {
        self.as_str().to_utf16()
    }
}

impl ToUtf16 for Vec<u16> {
    fn to_utf16(&self) -> Vec<u16> {
        self.clone()
    }
}

/// UTF-16LE with a final NUL.
pub(super) fn wide(text: &(impl ToUtf16 + ?Sized)) -> Vec<u8> {
    let mut units = text.to_utf16();
    units.push(0);
    units.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Payload of event 4104: fragment `number` of `total` of a script block.
///
/// Without a path that field is empty, as PowerShell writes it for text that comes from no file.
pub fn script_block(
    number: i32,
    total: i32,
    text: &(impl ToUtf16 + ?Sized),
    id: &str,
    path: Option<&str>,
) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&number.to_le_bytes());
    payload.extend_from_slice(&total.to_le_bytes());
    payload.extend(wide(text));
    payload.extend(wide(id));
    payload.extend(wide(path.unwrap_or_default()));
    payload
}

/// Payload of event 4103: what a pipeline ran.
pub fn module_logging(
    context_info: &(impl ToUtf16 + ?Sized),
    user_data: &(impl ToUtf16 + ?Sized),
    payload: &(impl ToUtf16 + ?Sized),
) -> Vec<u8> {
    [wide(context_info), wide(user_data), wide(payload)].concat()
}

/// Payload of events 4105 and 4106: a script block starts or ends.
pub fn script_block_marker(id: &str, runspace_id: &str) -> Vec<u8> {
    [wide(id), wide(runspace_id)].concat()
}
