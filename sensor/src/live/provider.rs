//! A provider as the machine knows it: its registration, the processes that it runs in, and the sessions that have it
//! enabled.

mod guid_info;

pub use guid_info::{EnabledSession, GuidInfoError, ProviderState, parse_guid_info};

use std::path::PathBuf;

/// A manifest in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The provider's name; empty if the manifest has none.
    pub name: String,
    /// The file with its templates and messages, with variables expanded.
    pub resource_file: Option<PathBuf>,
    /// Whether that file exists. Without it other tools cannot decode the provider's events; this sensor can.
    pub resource_exists: bool,
}

/// Number of sessions on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCount {
    /// Running sessions that this account may see.
    pub used: u32,
    /// Sessions that the machine allows.
    pub max: u32,
}

/// Replaces each `%NAME%` for which `variable` returns a value.
pub fn expand_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after_sign)) = rest.split_once('%') {
        out.push_str(before);
        let known = after_sign.split_once('%').and_then(|(name, after)| Some((variable(name)?, after)));
        if let Some((value, after)) = known {
            out.push_str(&value);
            rest = after;
        } else {
            out.push('%');
            rest = after_sign;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::expand_variables;

    #[test]
    fn variables_expand_and_other_percent_signs_stay() {
        let variable = |name: &str| (name == "R").then(|| r"C:\W".to_owned());
        for (text, expected) in
            [(r"%R%\a.dll", r"C:\W\a.dll"), ("100%", "100%"), ("%X%R%", r"%XC:\W"), ("", ""), ("%%", "%%")]
        {
            assert_eq!(expand_variables(text, variable), expected, "{text}");
        }
    }
}
