//! Payloads of the PowerShell provider: little-endian integers, followed by UTF-16LE strings with a final NUL.

/// Text that can be converted to UTF-16, including text that `str` cannot represent, such as lone surrogates.
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

/// Returns the payload of event 4104: fragment `number` of `total` of a script block.
///
/// Without a path the field is empty, as PowerShell writes it for text that does not come from a file.
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

/// Returns the payload of event 4103: the commands of a pipeline.
pub fn module_logging(
    context_info: &(impl ToUtf16 + ?Sized),
    user_data: &(impl ToUtf16 + ?Sized),
    payload: &(impl ToUtf16 + ?Sized),
) -> Vec<u8> {
    [wide(context_info), wide(user_data), wide(payload)].concat()
}

/// A scan of the antimalware scanner, as recorded in event 1101.
#[derive(Clone, Debug)]
pub struct AmsiScan {
    /// Size of a pointer in bytes: 8, or 4 for a 32-bit process.
    pub pointer_len: usize,
    /// The result of the scan.
    pub result: u32,
    /// The application that requested the scan.
    pub app_name: String,
    /// The file of the script.
    pub content_name: String,
    /// The content.
    pub content: Vec<u16>,
    /// Version of the event: 1 adds a hash.
    pub version: u8,
}

impl AmsiScan {
    /// A scan, requested by PowerShell, of a script without a file, in which nothing is detected.
    pub fn powershell(content: &(impl ToUtf16 + ?Sized)) -> Self {
        let file = r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe";
        Self {
            pointer_len: 8,
            result: 1,
            app_name: format!("PowerShell_{file}_10.0.18362.1"),
            content_name: String::new(),
            content: content.to_utf16(),
            version: 0,
        }
    }

    /// Returns the payload. The content is always at an odd offset, whatever the length of the application's name.
    pub fn payload(&self) -> Vec<u8> {
        let content: Vec<u8> = self.content.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let size = (content.len() as u32).to_le_bytes();
        let hash = [0x5A; 32];
        let mut payload = vec![0x29; self.pointer_len];
        payload.push(0);
        payload.extend(self.result.to_le_bytes());
        payload.extend(wide(&self.app_name));
        payload.extend(wide(&self.content_name));
        payload.extend(size);
        payload.extend(size);
        payload.extend(content);
        payload.extend(hash);
        payload.extend(0_u32.to_le_bytes());
        if self.version > 0 {
            payload.extend(hash);
        }
        payload
    }
}

/// Returns the payload of events 4105 and 4106: a script block starts or ends.
pub fn script_block_marker(id: &str, runspace_id: &str) -> Vec<u8> {
    [wide(id), wide(runspace_id)].concat()
}
