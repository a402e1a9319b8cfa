//! The logging policies of both PowerShell editions, and what PowerShell logs under them.
//!
//! Both editions read `HKLM` before `HKCU` and never mix the two, but they differ in when a hive decides:
//! - Windows PowerShell: if the policy's key exists, even if it is empty. The text "1" counts like the number 1.
//! - PowerShell 7: if the key contains a valid setting; only numbers count. `UseWindowsPowerShellPolicySetting`
//!   redirects it to the key of Windows PowerShell in the same hive.
//!
//! Source: `Utils.cs` and `CompiledScriptBlock.cs` of PowerShell. Two places are not read here:
//! `powershell.config.json` next to `pwsh.exe`, which PowerShell 7 reads if the registry does not decide, and the
//! `HKCU` of other accounts. Both can disable logging unless `HKLM` decides, so the policy of a monitored machine
//! belongs in `HKLM`.
//!
//! This module interprets values; it reads the registry through a function that the caller passes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

const WINDOWS_POWERSHELL: &str = r"SOFTWARE\Policies\Microsoft\Windows\PowerShell";
const POWERSHELL_7: &str = r"SOFTWARE\Policies\Microsoft\PowerShellCore";
const PROTECTED: &str = r"SOFTWARE\Policies\Microsoft\Windows\EventLog\ProtectedEventLogging";
const HIVES: [Hive; 2] = [Hive::LocalMachine, Hive::CurrentUser];

/// A root of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hive {
    /// `HKEY_LOCAL_MACHINE`
    LocalMachine,
    /// `HKEY_CURRENT_USER` of the account that this process runs as.
    CurrentUser,
}

impl fmt::Display for Hive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalMachine => "HKLM",
            Self::CurrentUser => "HKCU",
        })
    }
}

/// A value in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `REG_DWORD`
    Number(u32),
    /// `REG_SZ` or `REG_EXPAND_SZ`
    Text(String),
    /// `REG_MULTI_SZ`
    Texts(Vec<String>),
    /// Any other type.
    Other,
}

/// The values of a key by their names in lower case.
pub type Values = BTreeMap<String, Value>;

/// An edition of PowerShell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// Windows PowerShell 5.1, `powershell.exe`.
    WindowsPowerShell,
    /// PowerShell 7, `pwsh.exe`.
    PowerShell7,
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WindowsPowerShell => "Windows PowerShell",
            Self::PowerShell7 => "PowerShell 7",
        })
    }
}

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// Set to 1.
    On,
    /// Set to 0.
    Off,
    /// Absent, or neither 0 nor 1.
    #[default]
    NotConfigured,
}

/// The settings of one edition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditionPolicy {
    /// `EnableScriptBlockLogging`: event 4104.
    pub script_blocks: Setting,
    /// `EnableScriptBlockInvocationLogging`: events 4105 and 4106 for each call.
    pub invocations: Setting,
    /// The key that determines both.
    pub script_blocks_found_in: Option<String>,
    /// `EnableModuleLogging`: event 4103.
    pub modules: Setting,
    /// Patterns of the modules to log, in lower case. Without any, module logging logs nothing.
    pub module_names: Vec<String>,
    /// The key that determines module logging.
    pub modules_found_in: Option<String>,
}

/// The policies of a machine and of the account that this process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Settings of Windows PowerShell 5.1.
    pub windows_powershell: EditionPolicy,
    /// Settings of PowerShell 7.
    pub powershell7: EditionPolicy,
    /// `EnableProtectedEventLogging`, for both editions and in `HKLM` only.
    pub protected: Setting,
    /// Whether an encryption certificate is set. Without one nothing is encrypted.
    pub certificate: bool,
    /// Keys that could not be read, with the reason. PowerShell may be able to read them.
    pub unreadable: Vec<String>,
}

/// Which script blocks PowerShell logs as event 4104.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// Each block, once per process.
    All,
    /// Only blocks that contain a word from PowerShell's list of suspicious words.
    SuspiciousOnly,
    /// No block, not even suspicious ones.
    Nothing,
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "every script block is logged",
            Self::SuspiciousOnly => "only script blocks that PowerShell considers suspicious are logged",
            Self::Nothing => "no script block is logged",
        })
    }
}

/// Effect of a policy on both editions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectivePolicy {
    /// Windows PowerShell 5.1.
    pub windows_powershell: Logging,
    /// PowerShell 7.
    pub powershell7: Logging,
    /// Whether text is encrypted before it is logged, so that rules cannot match it. (PowerShell logs plain text if the
    /// certificate is unusable.)
    pub encrypted: bool,
}

impl Policy {
    /// Returns what PowerShell logs under this policy.
    pub fn effective(&self) -> EffectivePolicy {
        let logging = |edition: &EditionPolicy| match edition.script_blocks {
            Setting::On => Logging::All,
            Setting::Off => Logging::Nothing,
            Setting::NotConfigured => Logging::SuspiciousOnly,
        };
        EffectivePolicy {
            windows_powershell: logging(&self.windows_powershell),
            powershell7: logging(&self.powershell7),
            encrypted: self.protected == Setting::On && self.certificate,
        }
    }
}

/// Reads the policies through `lookup`, which returns the values of a key, or `None` if the key does not exist. Keys
/// that cannot be read are listed in the result.
pub fn read_with(lookup: impl FnMut(Hive, &str) -> io::Result<Option<Values>>) -> Policy {
    Reader { lookup, unreadable: Vec::new() }.read()
}

struct Reader<L> {
    lookup: L,
    unreadable: Vec<String>,
}

/// The key that determines a policy, with its values.
struct DecidingKey {
    hive: Hive,
    path: String,
    values: Values,
}

impl<L: FnMut(Hive, &str) -> io::Result<Option<Values>>> Reader<L> {
    fn read(mut self) -> Policy {
        let windows_powershell = self.edition(Edition::WindowsPowerShell);
        let powershell7 = self.edition(Edition::PowerShell7);
        let protected = self.values(Hive::LocalMachine, PROTECTED).unwrap_or_default();
        let certificate = match protected.get("encryptioncertificate") {
            Some(Value::Text(text)) => !text.is_empty(),
            Some(Value::Texts(texts)) => !texts.is_empty(),
            _ => false,
        };
        let protected = text_or_number(protected.get("enableprotectedeventlogging"));
        Policy { windows_powershell, powershell7, protected, certificate, unreadable: self.unreadable }
    }

    fn edition(&mut self, edition: Edition) -> EditionPolicy {
        let setting = match edition {
            Edition::WindowsPowerShell => text_or_number,
            Edition::PowerShell7 => number,
        };
        let mut policy = EditionPolicy::default();
        let switches = ["enablescriptblocklogging", "enablescriptblockinvocationlogging"];
        if let Some(key) = self.decide(edition, "ScriptBlockLogging", &switches, None) {
            let [blocks, invocations] = switches.map(|name| setting(key.values.get(name)));
            (policy.script_blocks, policy.invocations) = (blocks, invocations);
            policy.script_blocks_found_in = Some(key.full_path());
        }
        let switch = "enablemodulelogging";
        if let Some(key) = self.decide(edition, "ModuleLogging", &[switch], Some("ModuleNames")) {
            policy.modules = setting(key.values.get(switch));
            // The names of the values are the patterns; the data do not matter.
            let names = self.values(key.hive, &format!(r"{}\ModuleNames", key.path)).unwrap_or_default();
            policy.module_names = names.into_keys().filter(|name| !name.is_empty()).collect();
            policy.modules_found_in = Some(key.full_path());
        }
        policy
    }

    /// Returns the key that determines a policy of an edition.
    fn decide(
        &mut self,
        edition: Edition,
        name: &str,
        switches: &[&str],
        subkey: Option<&str>,
    ) -> Option<DecidingKey> {
        for hive in HIVES {
            let windows = format!(r"{WINDOWS_POWERSHELL}\{name}");
            if edition == Edition::WindowsPowerShell {
                match self.values(hive, &windows) {
                    Some(values) => return Some(DecidingKey { hive, path: windows, values }),
                    None => continue,
                }
            }
            let own = format!(r"{POWERSHELL_7}\{name}");
            let Some(mut values) = self.values(hive, &own) else {
                continue;
            };
            let mut path = own;
            if matches!(values.get("usewindowspowershellpolicysetting"), Some(Value::Number(flag)) if *flag != 0)
            {
                match self.values(hive, &windows) {
                    Some(others) => (path, values) = (windows, others),
                    None => continue,
                }
            }
            let has_setting =
                switches.iter().any(|switch| number(values.get(*switch)) != Setting::NotConfigured)
                    || subkey.is_some_and(|subkey| self.values(hive, &format!(r"{path}\{subkey}")).is_some());
            if has_setting {
                return Some(DecidingKey { hive, path, values });
            }
        }
        None
    }

    fn values(&mut self, hive: Hive, path: &str) -> Option<Values> {
        match (self.lookup)(hive, path) {
            Ok(values) => values,
            Err(error) => {
                self.unreadable.push(format!(r"{hive}\{path}: {error}"));
                None
            }
        }
    }
}

impl DecidingKey {
    fn full_path(&self) -> String {
        format!(r"{}\{}", self.hive, self.path)
    }
}

/// Reads a setting like PowerShell 7.
fn number(value: Option<&Value>) -> Setting {
    match value {
        Some(Value::Number(1)) => Setting::On,
        Some(Value::Number(0)) => Setting::Off,
        _ => Setting::NotConfigured,
    }
}

/// Reads a setting like Windows PowerShell.
fn text_or_number(value: Option<&Value>) -> Setting {
    match value {
        Some(Value::Text(text)) if text == "1" => Setting::On,
        Some(Value::Text(text)) if text == "0" => Setting::Off,
        value => number(value),
    }
}

#[cfg(test)]
mod tests;
