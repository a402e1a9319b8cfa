use super::{PatternCache, fold};
use crate::view::mapped::Mapped;
use crate::view::transformation::Transformation::{
    self, Base64, CharCast, Concatenation, Deflate, Format, Join, Replace, Reverse, Split,
};
use crate::view::work::{MAKE_STEPS_MAX, ViewBudget, Work};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Calls `make` with the budget of a text of this many units.
pub(in crate::view) fn with_work<T>(units: usize, make: impl FnOnce(&mut Work<'_, '_>) -> T) -> T {
    make(&mut ViewBudget::new(2 * units).parts().0)
}

/// Folds a text until nothing changes, at most six times. Returns the result and the transformations.
fn folded(text: &str) -> (String, Vec<Transformation>) {
    let units: Vec<[u8; 2]> = text.encode_utf16().map(u16::to_le_bytes).collect();
    let mut text = Mapped::original(&units);
    let mut patterns = PatternCache::default();
    with_work(1 << 20, |work| {
        for _ in 0..6 {
            let Some(next) = fold(&text, work, &mut patterns, &mut Vec::new()) else { break };
            text = next;
        }
    });
    let done = text.origin(&(0..text.units().len())).1.list();
    (String::from_utf16_lossy(text.units()), done)
}

fn wide(text: &str) -> String {
    STANDARD.encode(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn constant_expressions_are_folded() {
    let encoded = format!("powershell -nop -e {}", wide("Enter-PSSession -cn a"));
    let twice =
        format!("powershell.exe \u{2013}EnC '{}'", wide(&format!("powershell -ec {}", wide("Get-Foo"))));
    let named = format!(
        "$b='{}';iex([Text.Encoding]::Unicode.GetString([Convert]::FromBase64String($b)))",
        wide("Get-Foo -Bar")
    );
    let inline = format!(
        "iex ([System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String('{}')))",
        STANDARD.encode("Get-Foo -Bar")
    );
    let stream = format!(
        "(New-Object IO.Compression.DeflateStream([IO.MemoryStream][Convert]::FromBase64String('{}'),[IO.Compression.CompressionMode]::Decompress))",
        STANDARD.encode(miniz_oxide::deflate::compress_to_vec(b"Get-Foo -Bar", 6))
    );
    let rows: &[(&str, &str, &str, &[Transformation])] = &[
        ("strings", "iex ('Enter-'+ \"PSS\" + 'ession')", "iex 'Enter-PSSession'", &[Concatenation]),
        ("command", "& ('Get'+'-Foo') x", "& Get-Foo x", &[Concatenation]),
        (
            "member",
            "$c.('Down'+'load').Invoke('http'+'://x')",
            "$c.Download.Invoke('http://x')",
            &[Concatenation],
        ),
        ("arguments", "$c.Get(('ht'+'tp://x'))", "$c.Get('http://x')", &[Concatenation]),
        ("line end behind the sign", "'Get-' +\r\n  'Foo'", "'Get-Foo'", &[Concatenation]),
        ("format", "iex (\"{1}{0}{2}\" -f 'er-PSS','Ent','ession')", "iex 'Enter-PSSession'", &[Format]),
        ("format with widths and braces", "('{{{0,3}{1,-3}}}' -f 'a','b')", "'{  ab  }'", &[Format]),
        ("join", "('Get','-','Foo') -join ''", "'Get-Foo'", &[Join]),
        ("unary join of a split", "iex (-join ('Ge~t-~Foo'.Split('~')))", "iex 'Get-Foo'", &[Join, Split]),
        ("split by an operator", "('a1b' -split '1') -join '-'", "'a-b'", &[Join, Split]),
        ("static methods", "[string]::Join('',('Get','Foo'))", "'GetFoo'", &[Join]),
        ("characters", "([char]71+[char]0x65+[char]'t')", "'Get'", &[Concatenation, CharCast]),
        ("characters and a cast", "[string]::Join('',[char[]](71,101,116))", "'Get'", &[Join, CharCast]),
        (
            "numbers by a pipeline",
            "-join ('71_101,116'.Split('_,') | % { [char][int]$_ })",
            "'Get'",
            &[Join, Split, CharCast],
        ),
        (
            "hexadecimal",
            "('47 65' -split ' ' | ForEach-Object {[char]([convert]::ToInt16($_,16))}) -join ''",
            "'Ge'",
            &[Join, Split, CharCast],
        ),
        ("exclusive or", "(-join ([char[]]'Fdu' | %{[char]($_ -bxor 1)}))", "'Get'", &[Join, CharCast]),
        (
            "exclusive or of numbers",
            "-join((70,100,117)|%{[char]($_ -bxor 0x01)})",
            "'Get'",
            &[Join, CharCast],
        ),
        ("arithmetic", "[char](70+1)+[char](2*50+1)", "'Ge'", &[Concatenation, CharCast]),
        ("reversed", "'teG'[-1..-3] -join ''", "'Get'", &[Join, Reverse]),
        ("reversed by its length", "$s='teG';-join $s[($s.Length-1)..0]", "$s='teG';'Get'", &[Join, Reverse]),
        (
            "reversed array",
            "$s=[char[]]'teG';[array]::Reverse($s);iex(-join $s)",
            "$s=[char[]]'teG';[array]::Reverse($s);iex('Get')",
            &[Join, CharCast, Reverse],
        ),
        (
            "reversed matches",
            "-join([regex]::Matches('teG','.','RightToLeft')|%{$_.Value})",
            "'Get'",
            &[Join, Reverse],
        ),
        ("replace", "('GxYtxY' -replace 'xy','e').Replace('te','t')", "'Get'", &[Replace]),
        ("replace with an expression", "'G1e22t' -creplace '\\d+',''", "'Get'", &[Replace]),
        ("replace a character", "'GXet'.Replace([string][char]88,'')", "'Get'", &[Replace, CharCast]),
        (
            "variables",
            "$a='Ent';$b='er-';iex ($a+$b+'PSSession')",
            "$a='Ent';$b='er-';iex 'Enter-PSSession'",
            &[Concatenation],
        ),
        ("variables in a string", "$a='Ent'; iex \"${a}er\"", "$a='Ent'; iex 'Enter'", &[Concatenation]),
        (
            "appended to",
            "$a='Ge';$a+='t-';$a+='Foo';iex \"$a\"",
            "$a='Ge';$a+='t-';$a+='Foo';iex 'Get-Foo'",
            &[Concatenation],
        ),
        (
            "letters of what is always there",
            "&( $VerbosePreference.ToString()[1,3]+'x'-join'') y",
            "&iex y",
            &[Concatenation, Join],
        ),
        (
            "string in a string",
            "iex \"('Ge'+'t')\"; 1 ; iex ('(''Ge'''+'+''t'')')",
            "iex \"('Ge'+'t')\"; 1 ; iex 'Get'",
            &[Concatenation],
        ),
        ("encoded command", &encoded, "powershell -nop -e Enter-PSSession -cn a", &[Base64]),
        ("encoded twice", &twice, "powershell.exe \u{2013}EnC powershell -ec Get-Foo", &[Base64]),
        ("base64 by name", &named, "$b=Get-Foo -Bar;iex('Get-Foo -Bar')", &[Base64]),
        ("base64 inline", &inline, "iex 'Get-Foo -Bar'", &[Base64]),
        (
            "stream",
            &stream,
            "(New-Object IO.Compression.DeflateStream(Get-Foo -Bar,[IO.Compression.CompressionMode]::Decompress))",
            &[Base64, Deflate],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, expected, done) in rows {
        let (made, made_by) = folded(text);
        if (made.as_str(), &made_by[..]) != (*expected, *done) {
            wrong.push(format!("{name}: {text}: {made} {made_by:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn other_text_is_unchanged() {
    let rows = [
        "'a' + $unknown",
        "\"$unknown\" + 'b'",
        "'{0}{1}' -f 'a'",
        "# 'a'+'b'",
        "<# 'a'+'b' #> x",
        "$a = Get-Foo; $a.Replace('x','y')",
        "$i++ ; 1 + 2",
        "'a'+",
        "('a'+'b'",
        "[char]99999999999",
        "[int]'a'",
        "-join",
        "'it''s'",
        "@'\nplain + 'text'\n'@",
        "x -e abcdefgh",
    ];
    for text in rows {
        assert_eq!(folded(text).0, if text == "('a'+'b'" { "('ab'" } else { text }, "{text}");
    }
}

/// Work is counted, not timed: no text exceeds its budget, and results stay within their bounds.
#[test]
fn worst_cases_are_bounded() {
    let bomb = STANDARD.encode(miniz_oxide::deflate::compress_to_vec(&vec![b'a'; 32 << 20], 9));
    let mut nested = "Enter-PSSession".to_owned();
    for _ in 0..12 {
        nested = format!("powershell -e {}", wide(&nested));
        if nested.len() > 1 << 20 {
            break;
        }
    }
    let rows = [
        ("sum", format!("{}'a'", "'a'+".repeat(100_000))),
        ("open parentheses", "(".repeat(100_000)),
        ("nested parentheses", format!("{}'a'+'b'{}", "(".repeat(100_000), ")".repeat(100_000))),
        ("unary", "-join ".repeat(50_000)),
        ("casts", "[char[]]".repeat(50_000)),
        ("commas", format!("-join ('a'{})", ",'a'".repeat(100_000))),
        ("ranges", "(1..65535)+".repeat(20_000)),
        ("growing variable", format!("$a='aaaaaaaa';{}", "$a=$a+$a;".repeat(5_000))),
        ("variable in strings", format!("$a='{}';{}", "a".repeat(50_000), "\"$a$a$a\";".repeat(5_000))),
        (
            "replace that grows",
            format!("'{}'{}", "a".repeat(100), ".Replace('a','aaaaaaaaaa')".repeat(1_000)),
        ),
        ("pipelines", format!("((1..60000){})", "|%{$_,$_}".repeat(100))),
        ("expressions", "'aaaa' -replace '(a*)*(b|c)+','x';".repeat(3_000)),
        ("backticks", "`".repeat(1 << 20)),
        ("quotation marks", "'\"".repeat(1 << 19)),
        ("single quotation marks", "'".repeat((1 << 20) + 1)),
        ("here-strings", "@'\n".repeat(100_000)),
        ("comments", "<#".repeat(300_000)),
        ("dollars", "\"$(".repeat(100_000)),
        ("format", format!("('{}' -f 'a')", "{0,1000000}".repeat(10_000))),
        ("bombs", format!("FromBase64String;{}", format!("'{bomb}';").repeat(20))),
        ("base64 in base64", nested),
    ];
    for (name, text) in rows {
        let units: Vec<[u8; 2]> = text.encode_utf16().map(u16::to_le_bytes).collect();
        let mut text = Mapped::original(&units);
        let mut decoded = Vec::new();
        let mut budget = ViewBudget::new(2 * units.len());
        let mut patterns = PatternCache::default();
        let mut work = budget.parts().0;
        for _ in 0..6 {
            let Some(next) = fold(&text, &mut work, &mut patterns, &mut decoded) else { break };
            assert!(next.units().len() <= text.units().len() + 2 * super::GROWTH_UNITS_MAX, "{name}");
            text = next;
        }
        assert!(decoded.len() <= super::DECODED_MAX, "{name}");
        assert!(budget.steps() <= MAKE_STEPS_MAX, "{name}");
    }
    let long = folded(&format!("{}'b'", "'a'+".repeat(10_000))).0;
    assert_eq!(long.len(), 10_003, "a long sum is folded whole");
}
