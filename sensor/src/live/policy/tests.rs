//! Policies in a registry that the tests define.

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
    read_with(lookup)
}

#[test]
fn each_edition_logs_what_its_policy_says() {
    use Hive::{CurrentUser as User, LocalMachine as Machine};
    let (on, off) = (Value::Number(1), Value::Number(0));
    let text_on = Value::Text("1".into());
    let rows: [(&str, &[Row<'_>], Logging, Logging); 11] = [
        ("nothing configured", &[], SuspiciousOnly, SuspiciousOnly),
        ("Windows PowerShell only", &[(Machine, WP, &[(ENABLE, on.clone())])], All, SuspiciousOnly),
        ("PowerShell 7 only", &[(Machine, P7, &[(ENABLE, on.clone())])], SuspiciousOnly, All),
        ("off", &[(Machine, WP, &[(ENABLE, off.clone())])], Nothing, SuspiciousOnly),
        ("neither 0 nor 1", &[(Machine, WP, &[(ENABLE, Value::Number(2))])], SuspiciousOnly, SuspiciousOnly),
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
            "an empty machine key overrides the user's in Windows PowerShell only",
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
            "any machine setting overrides the user's",
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
        let found = policy(keys).effective();
        assert_eq!(found, EffectivePolicy { windows_powershell, powershell7, encrypted: false }, "{name}");
    }
}

#[test]
fn the_result_names_the_deciding_keys_and_the_modules() {
    let modules = r"SOFTWARE\Policies\Microsoft\PowerShellCore\ModuleLogging";
    let names = r"SOFTWARE\Policies\Microsoft\PowerShellCore\ModuleLogging\ModuleNames";
    let found = policy(&[
        (Hive::CurrentUser, WP, &[(ENABLE, Value::Number(1)), (CALLS, Value::Number(0))]),
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
fn encryption_needs_the_setting_and_a_certificate() {
    let certificate = ("encryptioncertificate", Value::Texts(vec!["-----BEGIN".into()]));
    let switch = ("enableprotectedeventlogging", Value::Number(1));
    let both = [switch.clone(), certificate.clone()];
    let rows = [
        ("both", Hive::LocalMachine, &both[..], true),
        ("no certificate", Hive::LocalMachine, &[switch], false),
        ("no switch", Hive::LocalMachine, &[certificate], false),
        ("user hive", Hive::CurrentUser, &both, false),
    ];
    for (name, hive, values, expected) in rows {
        assert_eq!(policy(&[(hive, PROTECTED, values)]).effective().encrypted, expected, "{name}");
    }
}

#[test]
fn keys_that_cannot_be_read_are_listed() {
    let lookup =
        |_: Hive, _: &str| -> io::Result<Option<Values>> { Err(io::ErrorKind::PermissionDenied.into()) };
    let found = read_with(lookup);
    assert_eq!(found.windows_powershell, EditionPolicy::default());
    assert_eq!(found.unreadable.len(), 9, "{:?}", found.unreadable);
}
