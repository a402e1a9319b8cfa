//! The logging policies of both PowerShell editions, and what they make PowerShell write.
//!
//! Both editions ask `HKLM` before `HKCU` and never mix the two, but they differ in when a hive has spoken:
//! - Windows PowerShell: when the policy's key exists, even if it is empty. A text "1" counts like a number 1.
//! - PowerShell 7: when the key holds a valid setting; only numbers count. `UseWindowsPowerShellPolicySetting` sends
//!   it to the key of Windows PowerShell in the same hive.
//!
//! Source: `Utils.cs` and `CompiledScriptBlock.cs` of PowerShell. Not read here: `powershell.config.json` beside
//! `pwsh.exe`, which PowerShell 7 asks when the registry is silent, and the `HKCU` of other accounts. Both can turn
//! logging off where `HKLM` is silent, so a machine that is to be watched sets its policy in `HKLM`.

use etwsieve_host::registry::{self, Hive, Value, Values};
use std::fmt;
use std::io;

const WINDOWS_POWERSHELL: &str = r"SOFTWARE\Policies\Microsoft\Windows\PowerShell";
const POWERSHELL_7: &str = r"SOFTWARE\Policies\Microsoft\PowerShellCore";
const PROTECTED: &str = r"SOFTWARE\Policies\Microsoft\Windows\EventLog\ProtectedEventLogging";
const HIVES: [Hive; 2] = [Hive::LocalMachine, Hive::CurrentUser];

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

/// A switch of a policy.
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

/// What the registry asks of one edition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditionPolicy {
    /// `EnableScriptBlockLogging`: event 4104.
    pub script_blocks: Setting,
    /// `EnableScriptBlockInvocationLogging`: events 4105 and 4106 for each call, which are many.
    pub invocations: Setting,
    /// The key that decided both.
    pub script_blocks_found_in: Option<String>,
    /// `EnableModuleLogging`: event 4103.
    pub modules: Setting,
    /// Patterns of the modules meant, in lower case; without any, module logging logs nothing.
    pub module_names: Vec<String>,
    /// The key that decided module logging.
    pub modules_found_in: Option<String>,
}

/// The policies of this machine and of the account that this process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of Windows PowerShell 5.1.
    pub windows_powershell: EditionPolicy,
    /// Of PowerShell 7.
    pub powershell7: EditionPolicy,
    /// `EnableProtectedEventLogging`, for both editions and in `HKLM` only.
    pub protected: Setting,
    /// Whether a certificate to encrypt with is named; without one nothing is encrypted.
    pub certificate: bool,
    /// Keys that could not be read, with the reason. PowerShell may be able to.
    pub unreadable: Vec<String>,
}

/// Which script blocks PowerShell logs as event 4104.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// Each, once per process.
    All,
    /// Only blocks that hold a word from PowerShell's own list.
    SuspiciousOnly,
    /// None: not even suspicious ones.
    Nothing,
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "every script block is logged",
            Self::SuspiciousOnly => "only script blocks that PowerShell finds suspicious are logged",
            Self::Nothing => "no script block is logged",
        })
    }
}

/// What both editions do under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Windows PowerShell 5.1.
    pub windows_powershell: Logging,
    /// PowerShell 7.
    pub powershell7: Logging,
    /// Whether texts are encrypted before they are logged: rules cannot see into them then. (PowerShell logs them
    /// in the clear all the same if the certificate turns out to be of no use.)
    pub encrypted: bool,
}

/// Reads the policies. A key that cannot be read is named in the result.
pub fn read() -> Policy {
    Reader { lookup: registry::values, unreadable: Vec::new() }.read()
}

/// What PowerShell does under `policy`.
pub fn effective(policy: &Policy) -> Effective {
    let logging = |edition: &EditionPolicy| match edition.script_blocks {
        Setting::On => Logging::All,
        Setting::Off => Logging::Nothing,
        Setting::NotConfigured => Logging::SuspiciousOnly,
    };
    Effective {
        windows_powershell: logging(&policy.windows_powershell),
        powershell7: logging(&policy.powershell7),
        encrypted: policy.protected == Setting::On && policy.certificate,
    }
}

/// Reads the policies through `lookup`, which the tests replace.
struct Reader<L> {
    lookup: L,
    unreadable: Vec<String>,
}

/// A key that decides, with its values.
struct Decided {
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
            // The names of the values are the patterns; their data are not looked at.
            let names = self.values(key.hive, &format!(r"{}\ModuleNames", key.path)).unwrap_or_default();
            policy.module_names = names.into_keys().filter(|name| !name.is_empty()).collect();
            policy.modules_found_in = Some(key.full_path());
        }
        policy
    }

    /// The key that decides a policy for an edition.
    fn decide(
        &mut self,
        edition: Edition,
        name: &str,
        switches: &[&str],
        subkey: Option<&str>,
    ) -> Option<Decided> {
        for hive in HIVES {
            let windows = format!(r"{WINDOWS_POWERSHELL}\{name}");
            if edition == Edition::WindowsPowerShell {
                match self.values(hive, &windows) {
                    Some(values) => return Some(Decided { hive, path: windows, values }),
                    None => continue,
                }
            }
            let own = format!(r"{POWERSHELL_7}\{name}");
            let Some(mut values) = self.values(hive, &own) else {
                continue;
            };
            let mut path = own;
            if matches!(values.get("usewindowspowershellpolicysetting"), Some(Value::Dword(flag)) if *flag != 0)
            {
                match self.values(hive, &windows) {
                    Some(others) => (path, values) = (windows, others),
                    None => continue,
                }
            }
            let speaks = switches.iter().any(|switch| number(values.get(*switch)) != Setting::NotConfigured)
                || subkey.is_some_and(|subkey| self.values(hive, &format!(r"{path}\{subkey}")).is_some());
            if speaks {
                return Some(Decided { hive, path, values });
            }
        }
        None
    }

    fn values(&mut self, hive: Hive, path: &str) -> Option<Values> {
        match (self.lookup)(hive, path) {
            Ok(values) => values,
            Err(error) => {
                self.unreadable.push(format!(r"{}\{path}: {error}", hive.name()));
                None
            }
        }
    }
}

impl Decided {
    fn full_path(&self) -> String {
        format!(r"{}\{}", self.hive.name(), self.path)
    }
}

/// A switch as PowerShell 7 reads it.
fn number(value: Option<&Value>) -> Setting {
    match value {
        Some(Value::Dword(1)) => Setting::On,
        Some(Value::Dword(0)) => Setting::Off,
        _ => Setting::NotConfigured,
    }
}

/// A switch as Windows PowerShell reads it.
fn text_or_number(value: Option<&Value>) -> Setting {
    match value {
        Some(Value::Text(text)) if text == "1" => Setting::On,
        Some(Value::Text(text)) if text == "0" => Setting::Off,
        value => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Logging::{All, Nothing, SuspiciousOnly};

    const WP: &str = r"SOFTWARE\Policies\Microsoft\Windows\PowerShell\ScriptBlockLogging";
    const P7: &str = r"SOFTWARE\Policies\Microsoft\PowerShellCore\ScriptBlockLogging";
    const ENABLE: &str = "enablescriptblocklogging";
    const CALLS: &str = "enablescriptblockinvocationlogging";
    const USE: &str = "usewindowspowershellpolicysetting";

    type Row<'a> = (Hive, &'a str, &'a [(&'a str, Value)]);

    fn policy(keys: &[Row<'_>]) -> Policy {
        let lookup = |hive: Hive, path: &str| {
            Ok(keys.iter().find(|key| key.0 == hive && key.1 == path).map(|key| {
                key.2.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Values>()
            }))
        };
        Reader { lookup, unreadable: Vec::new() }.read()
    }

    #[test]
    fn what_powershell_does() {
        use Hive::{CurrentUser as User, LocalMachine as Machine};
        let (on, off) = (Value::Dword(1), Value::Dword(0));
        let text_on = Value::Text("1".into());
        let rows: [(&str, &[Row<'_>], Logging, Logging); 11] = [
            ("nothing configured", &[], SuspiciousOnly, SuspiciousOnly),
            ("Windows PowerShell only", &[(Machine, WP, &[(ENABLE, on.clone())])], All, SuspiciousOnly),
            ("PowerShell 7 only", &[(Machine, P7, &[(ENABLE, on.clone())])], SuspiciousOnly, All),
            ("off", &[(Machine, WP, &[(ENABLE, off.clone())])], Nothing, SuspiciousOnly),
            (
                "neither 0 nor 1",
                &[(Machine, WP, &[(ENABLE, Value::Dword(2))])],
                SuspiciousOnly,
                SuspiciousOnly,
            ),
            (
                "machine over user",
                &[
                    (Machine, WP, &[(ENABLE, on.clone())]),
                    (User, WP, &[(ENABLE, off.clone())]),
                    (Machine, P7, &[(ENABLE, off.clone())]),
                    (User, P7, &[(ENABLE, on.clone())]),
                ],
                All,
                Nothing,
            ),
            (
                "an empty machine key silences the user's in Windows PowerShell alone",
                &[
                    (Machine, WP, &[]),
                    (User, WP, &[(ENABLE, on.clone())]),
                    (Machine, P7, &[]),
                    (User, P7, &[(ENABLE, on.clone())]),
                ],
                SuspiciousOnly,
                All,
            ),
            (
                "any machine setting silences the user's",
                &[(Machine, P7, &[(CALLS, on.clone())]), (User, P7, &[(ENABLE, off.clone())])],
                SuspiciousOnly,
                SuspiciousOnly,
            ),
            (
                "text instead of number",
                &[(Machine, WP, &[(ENABLE, text_on.clone())]), (Machine, P7, &[(ENABLE, text_on)])],
                All,
                SuspiciousOnly,
            ),
            (
                "PowerShell 7 follows Windows PowerShell",
                &[
                    (Machine, WP, &[(ENABLE, on.clone())]),
                    (Machine, P7, &[(USE, on.clone()), (ENABLE, off.clone())]),
                ],
                All,
                All,
            ),
            (
                "PowerShell 7 follows a key that is absent",
                &[(Machine, P7, &[(USE, on), (ENABLE, off.clone())]), (User, P7, &[(ENABLE, off)])],
                SuspiciousOnly,
                Nothing,
            ),
        ];
        for (name, keys, windows_powershell, powershell7) in rows {
            let found = effective(&policy(keys));
            assert_eq!(found, Effective { windows_powershell, powershell7, encrypted: false }, "{name}");
        }
    }

    #[test]
    fn the_deciding_key_and_the_modules_are_told() {
        let modules = r"SOFTWARE\Policies\Microsoft\PowerShellCore\ModuleLogging";
        let names = r"SOFTWARE\Policies\Microsoft\PowerShellCore\ModuleLogging\ModuleNames";
        let found = policy(&[
            (Hive::CurrentUser, WP, &[(ENABLE, Value::Dword(1)), (CALLS, Value::Dword(0))]),
            (Hive::LocalMachine, modules, &[]),
            (Hive::LocalMachine, names, &[("*", Value::Text("*".into())), ("", Value::Text(String::new()))]),
        ]);
        let windows = &found.windows_powershell;
        assert_eq!(windows.script_blocks_found_in, Some(format!(r"HKCU\{WP}")));
        assert_eq!((windows.script_blocks, windows.invocations), (Setting::On, Setting::Off));
        assert_eq!(found.powershell7.modules_found_in, Some(format!(r"HKLM\{modules}")));
        assert_eq!(found.powershell7.modules, Setting::NotConfigured);
        assert_eq!(found.powershell7.module_names, ["*"]);
    }

    #[test]
    fn encryption_needs_switch_and_certificate() {
        let certificate = ("encryptioncertificate", Value::Texts(vec!["-----BEGIN".into()]));
        let switch = ("enableprotectedeventlogging", Value::Dword(1));
        let both = [switch.clone(), certificate.clone()];
        let rows = [
            ("both", Hive::LocalMachine, &both[..], true),
            ("no certificate", Hive::LocalMachine, &[switch], false),
            ("no switch", Hive::LocalMachine, &[certificate], false),
            ("user hive", Hive::CurrentUser, &both, false),
        ];
        for (name, hive, values, expected) in rows {
            assert_eq!(effective(&policy(&[(hive, PROTECTED, values)])).encrypted, expected, "{name}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let lookup =
            |_: Hive, _: &str| -> io::Result<Option<Values>> { Err(io::ErrorKind::PermissionDenied.into()) };
        let found = Reader { lookup, unreadable: Vec::new() }.read();
        assert_eq!(found.windows_powershell, EditionPolicy::default());
        assert_eq!(found.unreadable.len(), 9, "{:?}", found.unreadable);
    }

    #[test]
    fn this_machine_has_a_policy_or_none() {
        let found = read();
        assert_eq!(found.unreadable, [""; 0]);
    }
}
