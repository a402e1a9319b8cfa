use super::rewritten;
use crate::view::fold::tests::with_work;
use crate::view::mapped::Mapped;
use crate::view::transformation::Transformation::{
    self, Alias, Backtick, Dash, ModuleQualified, ParameterAlias, ParameterPrefix, Positional,
};

fn calls(text: &str) -> Vec<(String, Vec<Transformation>)> {
    let units: Vec<[u8; 2]> = text.encode_utf16().map(u16::to_le_bytes).collect();
    let text = Mapped::original(&units);
    let shown = |call: &Mapped| {
        let done = call.origin(&(0..call.units().len())).1.list();
        (String::from_utf16(call.units()).unwrap(), done)
    };
    let mut calls = Vec::new();
    with_work(4 << 20, |work| rewritten(&text, 100, work, |call| calls.push(shown(call))));
    calls
}

#[test]
fn calls_are_written_in_full() {
    let rows: &[(&str, &str, &str, &[Transformation])] = &[
        ("alias", "etsn -ComputerName a", "Enter-PSSession -ComputerName a", &[Alias]),
        ("positional", "Enter-PSSession srv01", "Enter-PSSession -ComputerName srv01", &[Positional]),
        (
            "alias and positional",
            "ETSN 'srv01'",
            "Enter-PSSession -ComputerName 'srv01'",
            &[Alias, Positional],
        ),
        ("prefix", "Enter-PSSession -Comp a", "Enter-PSSession -ComputerName a", &[ParameterPrefix]),
        ("parameter alias", "enter-pssession -cn:a", "enter-pssession -ComputerName:a", &[ParameterAlias]),
        (
            "module",
            "Microsoft.PowerShell.Core\\Enter-PSSession a",
            "Enter-PSSession -ComputerName a",
            &[Positional, ModuleQualified],
        ),
        ("called", "& 'etsn' a", "Enter-PSSession -ComputerName a", &[Alias, Positional]),
        ("called by a dot", ". etsn a", "Enter-PSSession -ComputerName a", &[Alias, Positional]),
        ("assigned", "$s = nsn srv", "New-PSSession -ComputerName srv", &[Alias, Positional]),
        ("in a pipeline", "'x' | %{ etsn $_ }", "Enter-PSSession -ComputerName $_ ", &[Alias, Positional]),
        ("in a sub-expression", "\"x\"; $(etsn b)", "Enter-PSSession -ComputerName b", &[Alias, Positional]),
        ("behind a block", "if ($x) { y } ; etsn b", "Enter-PSSession -ComputerName b", &[Alias, Positional]),
        (
            "with a switch before",
            "etsn -UseSSL srv",
            "Enter-PSSession -UseSSL -ComputerName srv",
            &[Alias, Positional],
        ),
        (
            "with another parameter before",
            "etsn -Cred $c srv",
            "Enter-PSSession -Credential $c -ComputerName srv",
            &[Alias, ParameterPrefix, Positional],
        ),
        (
            "with a script block",
            "icm srv1, srv2 { whoami }",
            "Invoke-Command -ComputerName srv1, srv2 -ScriptBlock { whoami }",
            &[Alias, Positional],
        ),
        (
            "over a line end",
            "etsn `\r\n srv",
            "Enter-PSSession `\r\n -ComputerName srv",
            &[Alias, Positional],
        ),
        (
            "obfuscated",
            "e`tsn \u{2013}c`n a",
            "Enter-PSSession -ComputerName a",
            &[Backtick, Alias, ParameterAlias],
        ),
        ("dash", "Enter\u{2013}PSSession a", "Enter-PSSession -ComputerName a", &[Dash, Positional]),
        (
            "in a string for Invoke-Expression",
            "iex 'etsn a'",
            "Enter-PSSession -ComputerName a",
            &[Alias, Positional],
        ),
        (
            "piped to Invoke-Expression",
            "'etsn a'|iex",
            "Enter-PSSession -ComputerName a",
            &[Alias, Positional],
        ),
    ];
    for (name, text, expected, done) in rows {
        let found = calls(text);
        let found: Vec<_> = found.iter().filter(|(text, _)| !text.starts_with("Invoke-Expression")).collect();
        let &[(made, by)] = &found[..] else { panic!("{name}: {found:?}") };
        assert_eq!((made.as_str(), &by[..]), (*expected, *done), "{name}");
    }
}

#[test]
fn other_text_and_full_calls_are_not_rewritten() {
    let rows = [
        "Enter-PSSession -ComputerName a",
        "Enter-PSSession -Session $s",
        "Enter-PSSession $session",
        "Enter-PSSession -C a",
        "'etsn a'",
        "\"etsn a\"",
        "# etsn a",
        "<# etsn a #>",
        "@'\netsn a\n'@",
        "Write-Host etsn a",
        "get-help etsn",
        "$etsn = 1",
        "etsnx a",
        "\\etsn a",
        "C:\\tools\\etsn a",
        "x.etsn a",
        "New-PSSession",
        "Get-Alias etsn",
        "@{ etsn = 'a' }",
    ];
    for text in rows {
        assert_eq!(calls(text), [], "{text}");
    }
}

#[test]
fn worst_cases_are_bounded() {
    let rows = [
        "(".repeat(200_000),
        "etsn (".repeat(50_000),
        "iex 'iex ''iex ''''etsn a''''''';".repeat(5_000),
        "{etsn a}".repeat(50_000),
        "`".repeat(200_000),
        format!("etsn {}", "a ".repeat(100_000)),
        "'|iex;".repeat(50_000),
    ];
    for text in rows {
        assert!(calls(&text).len() <= 100);
    }
}
