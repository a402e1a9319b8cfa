//! Ten rules of one needle each, as a beginner might write them.

use std::fmt::Write;

/// Needles of the rules: names of attack tools, and words that also occur in harmless scripts.
pub(super) const NEEDLES: [&str; 10] = [
    "Enter-PSSession",
    "Invoke-Mimikatz",
    "Net.WebClient",
    "FromBase64String",
    "-EncodedCommand",
    "VirtualAlloc",
    "AmsiUtils",
    "Get-Keystrokes",
    "MiniDumpWriteDump",
    "-ComputerName web07",
];

/// Returns the text of the rule's file.
pub(super) fn rule(number: u32, needle: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "title: Needle {number}\nid: 5f1e7a00-0000-4000-8000-{number:012}\nstatus: test\n\
         logsource:\n    product: windows\n    category: ps_script\n\
         detection:\n    selection:\n        ScriptBlockText|contains: '{needle}'\n    condition: selection\n\
         level: low\n"
    );
    text
}
