//! The memory of the views is bounded for texts that are made to be expensive. Tests of the matcher bound their work.

use etwsieve_bench::alloc::most_held;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, Views, builtin};

/// Maximum memory in bytes per unit of the text, for a few texts of the same length with the origins of their units.
const BYTES_PER_UNIT_MAX: usize = 32;
/// Maximum memory in bytes in addition: growth of the texts, one value, and decoded data.
const BYTES_MAX: usize = 64 << 20;

fn payload(text: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
    let behind = "\u{0}339311ba-d4cc-4a10-b04e-417ef95bc8b6\0\0";
    bytes.extend(text.encode_utf16().chain(behind.encode_utf16()).flat_map(u16::to_le_bytes));
    bytes
}

/// Nests a text repeatedly.
fn doubled(mut text: String, times: usize, with: impl Fn(&str) -> String) -> String {
    for _ in 0..times {
        text = with(&text);
    }
    text
}

#[test]
fn memory_is_bounded() {
    let _guard = super::alone();
    let rows: [(&str, String); 15] = [
        ("sum", format!("{}'a'", "'a'+".repeat(200_000))),
        ("sums in parentheses", format!("{}'a'+'b'{}", "(".repeat(100_000), ")".repeat(100_000))),
        ("growing variable", format!("$a='aaaaaaaa';{}", "$a=$a+$a;".repeat(5_000))),
        ("many variables", (0..50_000).fold(String::new(), |text, n| text + &format!("$v{n}='xxxxxxxxxx';"))),
        ("variable in strings", format!("$a='{}';{}", "a".repeat(50_000), "\"$a$a$a\";".repeat(5_000))),
        (
            "replace that grows",
            format!("'{}'{}", "a".repeat(100), ".Replace('a','aaaaaaaaaa')".repeat(1_000)),
        ),
        ("ranges", "(1..65535)+".repeat(20_000)),
        ("lists of lists", format!("-join (({})*2)", "(1..60000),".repeat(500))),
        ("pipelines", format!("((1..60000){})", "|%{$_,$_}".repeat(100))),
        ("calls", "etsn a;".repeat(100_000)),
        // Each call contains all that follow; separate texts would take gigabytes.
        ("nested calls", "etsn a (".repeat(100_000)),
        ("nested calls in braces", "nsn a {etsn b;".repeat(100_000)),
        ("padded text", "$a='{0,500000}' -f '';$b=\"$a$a$a$a$a$a$a$a\";".repeat(1_000)),
        (
            "strings in strings",
            doubled("etsn a".to_owned(), 14, |text| format!("iex '{}'", text.replace('\'', "''"))),
        ),
        ("obfuscation everywhere", "Enter-PSSess`ion \u{2013}ComputerName\t a;".repeat(40_000)),
    ];
    let matcher = Matcher::new(builtin::rules());
    for (name, text) in rows {
        // The suffix passes the prefilter, whatever the rest is.
        let bytes = payload(&format!("{text};[char]69"));
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
        let mut scratch = Scratch::default();
        let raw = matcher.find(&payload, &mut scratch).to_vec();
        let mut budget = ViewBudget::new(bytes.len());
        let (held, _) =
            most_held(|| matcher.find_views(&payload, Views::ALL, &raw, &mut scratch, &mut budget));
        let most = BYTES_PER_UNIT_MAX * bytes.len() / 2 + BYTES_MAX;
        println!("{name}: {} units, {held} bytes", bytes.len() / 2);
        assert!(held > 0, "{name} is inspected");
        assert!(held <= most, "{name}: {held} bytes held, {most} at most");
    }
}
