//! Obfuscated scripts in the style of the Invoke-Obfuscation family, written for the tests of this project.
//!
//! Each obfuscation rewrites a script into one that does the same. It has several variants, and is deterministic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use std::fmt::Write as _;
use std::io::Write as _;

/// A way to obfuscate a script.
pub struct Obfuscation {
    /// Family: token, string, encoding, compress or launcher.
    pub family: &'static str,
    /// Name of the obfuscation.
    pub name: &'static str,
    /// Obfuscates a script in the variant of the given number; `None` if the obfuscation does not apply to it.
    pub apply: fn(&str, u32) -> Option<String>,
}

const fn row(
    family: &'static str,
    name: &'static str,
    apply: fn(&str, u32) -> Option<String>,
) -> Obfuscation {
    Obfuscation { family, name, apply }
}

/// All obfuscations.
pub const ALL: &[Obfuscation] = &[
    row("token", "random case", |script, variant| Some(random_case(script, variant))),
    row("token", "backticks", |script, variant| Some(backticks(script, variant))),
    row("token", "dashes of other kinds", |script, variant| Some(dashes(script, variant))),
    row("token", "blanks, tabs and line continuation", |script, variant| Some(blanks(script, variant))),
    row("token", "command name concatenated", |script, variant| {
        command(script, |name| concatenated(name, variant))
    }),
    row("token", "command name formatted", |script, variant| {
        command(script, |name| formatted(name, variant))
    }),
    row("token", "alias and abbreviated parameters", abbreviated),
    row("token", "first argument without its name", positional),
    row("token", "command name from letters by wildcard", |script, _| wildcard(script)),
    row("string", "concatenation", |script, variant| Some(run(&concatenated(script, variant), variant))),
    row("string", "concatenation in variables", |script, variant| Some(in_variables(script, variant))),
    row("string", "format", |script, variant| Some(run(&formatted(script, variant), variant))),
    row("string", "reversed by index", |script, variant| Some(run(&reversed(script, variant), variant))),
    row("string", "reversed by [array]", |script, variant| Some(reversed_array(script, variant))),
    row("string", "reversed by [regex]", |script, variant| Some(reversed_regex(script, variant))),
    row("string", "-replace", |script, variant| Some(run(&replaced(script, variant, true), variant))),
    row("string", ".Replace()", |script, variant| Some(run(&replaced(script, variant, false), variant))),
    row("string", "split and join", |script, variant| Some(run(&split(script, variant), variant))),
    row("encoding", "characters", |script, variant| Some(run(&characters(script, variant), variant))),
    row("encoding", "decimal numbers", |script, variant| Some(run(&numbers(script, variant, 10), variant))),
    row("encoding", "hexadecimal numbers", |script, variant| {
        Some(run(&numbers(script, variant, 16), variant))
    }),
    row("encoding", "octal numbers", |script, variant| Some(run(&numbers(script, variant, 8), variant))),
    row("encoding", "binary numbers", |script, variant| Some(run(&numbers(script, variant, 2), variant))),
    row("encoding", "exclusive or", |script, variant| Some(run(&xored(script, variant), variant))),
    row("encoding", "base64", |script, variant| Some(run(&from_base64(script, variant), variant))),
    row("encoding", "whitespace", |script, variant| Some(whitespace(script, variant))),
    row("compress", "deflate", |script, variant| Some(compressed(script, variant, false))),
    row("compress", "gzip", |script, variant| Some(compressed(script, variant, true))),
    row("launcher", "-EncodedCommand", |script, variant| Some(encoded_command(script, variant))),
    row("launcher", "-EncodedCommand of an obfuscated script", |script, variant| {
        Some(encoded_command(&run(&concatenated(script, variant), variant), variant))
    }),
    row("launcher", "cmd and a variable of the environment", |script, variant| {
        Some(environment(script, variant))
    }),
    row("launcher", "standard input", |script, variant| {
        Some(format!("{} | powershell.exe -NoP -", formatted(script, variant)))
    }),
    row("launcher", "carets of cmd", |script, variant| Some(carets(script, variant))),
];

/// Splits text into pieces of two to five characters, whose lengths depend on the variant.
fn pieces(text: &str, variant: u32) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let (mut at, mut step) = (0, variant as usize);
    while at < chars.len() {
        step = (step * 5 + 3) % 1024;
        let len = (2 + step % 4).min(chars.len() - at);
        pieces.push(chars[at..at + len].iter().collect());
        at += len;
    }
    pieces
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn random_case(script: &str, variant: u32) -> String {
    let mixed = |(at, c): (usize, char)| {
        if (at as u32 * 7 + variant).is_multiple_of(3) {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    script.chars().enumerate().map(mixed).collect()
}

/// Inserts backticks inside words, before letters that a backtick does not change.
fn backticks(script: &str, variant: u32) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for (at, c) in script.chars().enumerate() {
        let plain = c.is_ascii_alphabetic() && !"abefnrtuv0".contains(c);
        if plain && before.is_ascii_alphanumeric() && (at as u32 + variant).is_multiple_of(2) {
            out.push('`');
        }
        out.push(c);
        before = c;
    }
    out
}

fn dashes(script: &str, variant: u32) -> String {
    let kinds = ["\u{2013}", "\u{2014}", "\u{2015}"];
    script.replace('-', kinds[variant as usize % kinds.len()])
}

/// Replaces blanks, and also dashes, without which the raw text would match.
fn blanks(script: &str, variant: u32) -> String {
    let kinds = ["   ", "\t", " `\r\n  ", "\u{a0}"];
    dashes(script, variant).replace(' ', kinds[variant as usize % kinds.len()])
}

/// Replaces the first word with an expression.
fn command(script: &str, expression: impl Fn(&str) -> String) -> Option<String> {
    let (name, rest) = script.split_once(' ')?;
    Some(format!("& ({}) {rest}", expression(name)))
}

fn concatenated(text: &str, variant: u32) -> String {
    let sign = ["+", " + ", "+ ", " +"][variant as usize % 4];
    pieces(text, variant).iter().map(|piece| quoted(piece)).collect::<Vec<_>>().join(sign)
}

fn formatted(text: &str, variant: u32) -> String {
    let pieces = pieces(text, variant);
    let count = pieces.len();
    // Each position once, in another order.
    let place = |number: usize| (number * 7 + variant as usize) % count;
    let step_is_good = !count.is_multiple_of(7);
    let place = |number: usize| if step_is_good { place(number) } else { count - 1 - number };
    let mut arguments = vec![String::new(); count];
    let mut template = String::new();
    for (number, piece) in pieces.iter().enumerate() {
        write!(template, "{{{}}}", place(number)).expect("strings take all");
        arguments[place(number)] = quoted(piece);
    }
    let operator = ["-f", " -f ", " -F", "-f "][variant as usize % 4];
    format!("\"{template}\"{operator}{}", arguments.join(","))
}

/// Returns a script that executes a string.
fn run(expression: &str, variant: u32) -> String {
    match variant % 4 {
        0 => format!("IEX ({expression})"),
        1 => format!("({expression}) | Invoke-Expression"),
        2 => format!("& ($pshome[4]+$pshome[30]+'x') ({expression})"),
        _ => format!(".( $VerbosePreference.ToString()[1,3]+'x'-JoIn'')( {expression} )"),
    }
}

fn abbreviated(script: &str, variant: u32) -> Option<String> {
    let aliases = [
        ("Enter-PSSession", "etsn"),
        ("New-PSSession", "nsn"),
        ("Invoke-Command", "icm"),
        ("Invoke-WebRequest", "iwr"),
        ("Get-WmiObject", "gwmi"),
    ];
    let (name, alias) = aliases.iter().find(|(name, _)| script.starts_with(name))?;
    let short = [("-ComputerName", "-Cn"), ("-ComputerName", "-Comp"), ("-OutFile", "-OutF")];
    let mut out = if variant == 0 { script.to_owned() } else { script.replace(name, alias) };
    for (long, abbreviation) in short.iter().skip(usize::from(variant % 2 == 1)) {
        out = out.replace(long, abbreviation);
    }
    (out != script).then_some(out)
}

fn positional(script: &str, variant: u32) -> Option<String> {
    let with_position = ["Enter-PSSession", "New-PSSession", "Invoke-Command"];
    let name = with_position.iter().find(|name| script.starts_with(*name))?;
    let out = script.replace(" -ComputerName", "");
    Some(match variant % 4 {
        0 => out,
        1 => format!("$x = {out}"),
        2 => format!("Microsoft.PowerShell.Core\\{out}"),
        _ => format!("if ($true) {{ {out} }}").replace(name, &format!("& '{name}'")),
    })
}

fn wildcard(script: &str) -> Option<String> {
    let (name, rest) = script.split_once(' ')?;
    let mut pattern: String =
        name.chars().enumerate().map(|(at, c)| if at % 3 == 2 { '*' } else { c }).collect();
    pattern.push('*');
    Some(format!("&(Get-Command {pattern}) {rest}"))
}

fn in_variables(script: &str, variant: u32) -> String {
    let mut out = String::new();
    let pieces = pieces(script, variant);
    for (number, piece) in pieces.iter().enumerate() {
        write!(out, "$v{number}={};", quoted(piece)).expect("strings take all");
    }
    let names: Vec<String> = (0..pieces.len()).map(|number| format!("$v{number}")).collect();
    if variant.is_multiple_of(2) {
        format!("{out}iex ({})", names.join("+"))
    } else {
        let names: Vec<String> = names.iter().map(|name| name.replace('$', "${") + "}").collect();
        format!("{out}iex \"{}\"", names.concat())
    }
}

fn reversed(script: &str, variant: u32) -> String {
    let text: String = script.chars().rev().collect();
    let len = text.len();
    match variant % 2 {
        0 => format!("-join {}[-1..-{len}]", quoted(&text)),
        _ => format!("({}[{}..0] -join '')", quoted(&text), len - 1),
    }
}

fn reversed_array(script: &str, variant: u32) -> String {
    let text: String = script.chars().rev().collect();
    let name = ["$a", "$reversed", "${x}", "$Q1"][variant as usize % 4];
    format!("{name}=[char[]]{};[array]::Reverse({name});iex (-join {name})", quoted(&text))
}

fn reversed_regex(script: &str, variant: u32) -> String {
    let text: String = script.chars().rev().collect();
    let each =
        ["ForEach-Object {$_.Value}", "% { $_ }", "foreach{$_.value}", "%{$_.Value}"][variant as usize % 4];
    format!("iex (-join([regex]::Matches({},'.','RightToLeft') | {each}))", quoted(&text))
}

fn replaced(script: &str, variant: u32, operator: bool) -> String {
    let mark = ["qX", "~1", "Zz9", "w0w"][variant as usize % 4];
    let sign = ["e", "S", "o", "-"][variant as usize % 4];
    let text = script.replace(sign, mark);
    match (operator, variant % 2) {
        (true, 0) => format!("{} -replace '{mark}','{sign}'", quoted(&text)),
        (true, _) => {
            format!("({} -creplace '{mark}',[char]{})", quoted(&text), u32::from(sign.as_bytes()[0]))
        }
        (false, 0) => format!("{}.Replace('{mark}','{sign}')", quoted(&text)),
        (false, _) => format!(
            "({}).\"Replace\"('{mark}',[string][char]{})",
            quoted(&text),
            u32::from(sign.as_bytes()[0])
        ),
    }
}

fn split(script: &str, variant: u32) -> String {
    let sign = ["~", "_", "%", "@"][variant as usize % 4];
    let text = quoted(&pieces(script, variant).join(sign));
    match variant % 2 {
        0 => format!("-join ({text}.Split('{sign}'))"),
        _ => format!("({text} -split '{sign}') -join ''"),
    }
}

fn characters(script: &str, variant: u32) -> String {
    let number = |c: char| match variant % 3 {
        0 => format!("[char]{}", u32::from(c)),
        1 => format!("[char]0x{:x}", u32::from(c)),
        _ => format!("[CHAR]({}+{})", u32::from(c) - 7, 7),
    };
    script.chars().map(number).collect::<Vec<_>>().join("+")
}

fn numbers(script: &str, variant: u32, base: u32) -> String {
    let number = |c: char| match base {
        2 => format!("{:b}", u32::from(c)),
        8 => format!("{:o}", u32::from(c)),
        16 => format!("{:x}", u32::from(c)),
        _ => u32::from(c).to_string(),
    };
    let sign = ["_", "~", ",", "!"][variant as usize % 4];
    let list = script.chars().map(number).collect::<Vec<_>>().join(sign);
    let body = match base {
        10 => "([char][int]$_)".to_owned(),
        _ => format!("([char]([Convert]::ToInt16(([string]$_),{base})))"),
    };
    match variant % 2 {
        0 => format!("-join ('{list}'.Split('{sign}') | % {{ {body} }})"),
        _ => format!("[string]::Join('',('{list}' -split '{sign}' | ForEach-Object {{{body}}}))"),
    }
}

fn xored(script: &str, variant: u32) -> String {
    let key = 0x21 + variant * 0x11;
    let list: Vec<String> = script.chars().map(|c| (u32::from(c) ^ key).to_string()).collect();
    format!("(({}) | %{{[char]($_ -bxor 0x{key:X})}}) -join ''", list.join(","))
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn from_base64(script: &str, variant: u32) -> String {
    let (encoding, bytes) =
        if variant.is_multiple_of(2) { ("Unicode", wide(script)) } else { ("UTF8", script.into()) };
    let data = STANDARD.encode(bytes);
    let data = if variant < 2 { quoted(&data) } else { format!("({})", concatenated(&data, variant)) };
    format!("[Text.Encoding]::{encoding}.GetString([Convert]::FromBase64String({data}))")
}

/// Encodes each digit as a run of tabs, separated by blanks.
fn whitespace(script: &str, variant: u32) -> String {
    let digits = |c: char| {
        u32::from(c).to_string().bytes().map(|d| "\t".repeat(usize::from(d - b'0'))).collect::<Vec<_>>()
    };
    let text: Vec<String> = script.chars().map(|c| digits(c).join(" ")).collect();
    let name = ["$w", "$x", "$y", "$z"][variant as usize % 4];
    format!(
        "{name}='{}';iex (-join ({name} -split '  ' | % {{ [char][int](-join ($_ -split ' ' | % {{ $_.Length }})) }}))",
        text.join("  ")
    )
}

fn compressed(script: &str, variant: u32, gzip: bool) -> String {
    let bytes = if variant.is_multiple_of(2) { script.as_bytes().to_vec() } else { wide(script) };
    let data = if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("memory takes all")
    } else {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("memory takes all")
    };
    let kind = if gzip { "Gzip" } else { "Deflate" };
    let encoding = if variant.is_multiple_of(2) { "ASCII" } else { "Unicode" };
    let data = if variant < 2 {
        quoted(&STANDARD.encode(data))
    } else {
        format!("({})", concatenated(&STANDARD.encode(data), variant))
    };
    format!(
        "IEX (New-Object IO.StreamReader((New-Object IO.Compression.{kind}Stream([IO.MemoryStream][Convert]::FromBase64String({data}),[IO.Compression.CompressionMode]::Decompress)),[Text.Encoding]::{encoding})).ReadToEnd()"
    )
}

fn encoded_command(script: &str, variant: u32) -> String {
    let name = ["-EncodedCommand", "-e", "\u{2013}enc", "-eC"][variant as usize % 4];
    format!("powershell.exe -NoP -NonI -W Hidden {name} {}", STANDARD.encode(wide(script)))
}

fn environment(script: &str, variant: u32) -> String {
    let inner = STANDARD.encode(wide(script));
    match variant % 2 {
        0 => format!("cmd /c \"set q=powershell -e {inner}&& call %q%\""),
        _ => format!("$env:q = {}; powershell -c 'iex $env:q'", concatenated(script, variant)),
    }
}

fn carets(script: &str, variant: u32) -> String {
    let with = pieces(script, variant).join("^");
    format!("cmd /c \"echo {with} | powershell -\"")
}
