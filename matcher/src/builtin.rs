//! The rules that are built in, used if no others are given.

use crate::rule::Rule;
use crate::rule::load::load;

/// The text of the built-in rule for the raw view.
pub const TEXT: &str = include_str!("builtin.yml");
/// The built-in rule files: names, as used in errors and origins, and texts.
pub const FILES: [(&str, &str); 2] =
    [("builtin.yml", TEXT), ("builtin-call.yml", include_str!("builtin-call.yml"))];

/// Returns the built-in rules.
///
/// # Panics
///
/// Never: a test loads them.
pub fn rules() -> Vec<Rule> {
    let loaded = load(FILES);
    assert!(loaded.errors.is_empty(), "the built-in rules load: {:?}", loaded.errors);
    loaded.rules
}

#[cfg(test)]
mod tests {
    use super::rules;
    use crate::testing::compile;
    use crate::{Calls, EventKind, Payload, Scratch, View, Views, naive};

    #[test]
    fn matches_and_near_misses() {
        let rows = [
            ("as typed", "Enter-PSSession -ComputerName srv01", true),
            ("any case", "ENTER-pssession -COMPUTERNAME srv01 -Credential $c", true),
            ("other order", "$p = @{}; foo -ComputerName x; Enter-PSSession @p", true),
            ("across lines", "Enter-PSSession `\r\n  -ComputerName srv01", true),
            ("inside words", "xEnter-PSSessionx-ComputerNamex", true),
            ("without the parameter", "Enter-PSSession srv01", false),
            ("other cmdlet", "Invoke-Command -ComputerName srv01 { whoami }", false),
            ("New-PSSession", "New-PSSession -ComputerName srv01", false),
            ("one letter less", "Enter-PSSessio -ComputerName srv01", false),
            ("en dash", "Enter\u{2013}PSSession -ComputerName srv01", false),
            ("backtick", "Enter-PSSes`sion -ComputerName srv01", false),
            ("full-width letters", "\u{ff25}nter-PSSession -ComputerName srv01", false),
            (
                "Kelvin sign is not a k",
                "Enter-PSSession -ComputerName".replace('m', "\u{212a}").leak() as &str,
                false,
            ),
        ];
        let matcher = compile(rules());
        let mut scratch = Scratch::default();
        for (name, text, expected) in rows {
            let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
            bytes.extend(format!("{text}\0id\0\0").encode_utf16().flat_map(u16::to_le_bytes));
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
            assert_eq!(!matcher.find(&payload, &mut scratch).is_empty(), expected, "{name}");
            assert_eq!(
                naive::matches(&matcher.rules()[0], EventKind::ScriptBlock, &bytes),
                expected,
                "{name}"
            );
        }
    }

    /// Tests the rule of the call-aware view, and which view matches a text.
    #[test]
    fn matches_of_the_views() {
        let normalized = Some(View::Normalized);
        let call = Some(View::Call);
        let rows = [
            ("as typed: raw", "Enter-PSSession -ComputerName srv01", None),
            ("en dash", "Enter\u{2013}PSSession \u{2013}ComputerName srv01", normalized),
            ("backtick", "Enter-PSSes`sion -ComputerName srv01", normalized),
            ("concatenation", "& ('Enter-PS'+'Session') -ComputerName srv01", normalized),
            ("alias", "etsn -ComputerName srv01", call),
            ("alias and first argument", "etsn srv01", call),
            ("abbreviation", "Enter-PSSession -Comp srv01", call),
            ("alias of the parameter", "Enter-PSSession -Cn srv01", call),
            ("module", "Microsoft.PowerShell.Core\\Enter-PSSession srv01", call),
            ("alias with a backtick", "e`tsn srv01", call),
            ("alias in a folded string", "iex ('et'+'sn srv01')", call),
            ("ambiguous abbreviation", "Enter-PSSession -C srv01", None),
            ("a session that exists", "Enter-PSSession -Session $s", None),
            ("another cmdlet", "nsn srv01", None),
            ("in a string", "'etsn srv01'", None),
            ("in a comment", "# etsn srv01", None),
            ("two calls", "Enter-PSSession -Session $s; Get-Service -Comp x", None),
            ("full-width letters", "\u{ff25}nter-PSSession srv01", None),
        ];
        let matcher = compile(rules());
        let mut scratch = Scratch::default();
        for (name, text, expected) in rows {
            let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
            bytes.extend(format!("{text}\0id\0\0").encode_utf16().flat_map(u16::to_le_bytes));
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
            let raw = matcher.find(&payload, &mut scratch).to_vec();
            let mut budget = crate::ViewBudget::new(payload.bytes.len());
            let found = matcher.find_views(&payload, Views::ALL, &raw, &mut scratch, &mut budget);
            let views: Vec<View> = found.iter().map(|found| found.view).collect();
            assert_eq!(views, Vec::from_iter(expected), "{name}: {found:?}");
            assert!(found.iter().all(|found| (found.rule == 1) == (found.view == View::Call)), "{name}");
        }
    }

    #[test]
    fn metadata_of_the_rules() {
        let rules = rules();
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].calls, rules[1].calls), (Calls::No, Calls::Only));
        assert_eq!((&rules[1].base, &rules[1].attack), (&rules[0].id, &rules[0].attack));
        assert_eq!(rules[0].id, "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af");
        assert_eq!(rules[0].attack, ["T1021.006"]);
        assert_eq!(rules[0].level, "medium");
    }
}
