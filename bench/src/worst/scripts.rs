//! Expensive scripts: each kind was once expensive, or was found by a search with mutations.

use std::fmt::Write as _;

/// Makes a script of about this many UTF-16 units, with at least one instance of the expensive construct.
type Make = fn(usize) -> String;

/// A kind of expensive script.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in reports.
    pub name: &'static str,
    make: Make,
}

/// Passes every prefilter, so that all views are computed for each script.
const REASON: &str = "('a' -f 'b');[char]69;";

impl Kind {
    /// Makes a script of this kind with about this many units that passes the prefilter.
    pub fn script(&self, units: usize) -> String {
        format!("{REASON}{}", (self.make)(units.saturating_sub(REASON.len())))
    }
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind { name: "padded text replaced", make: padded_replace },
    Kind { name: "padded text split", make: padded_split },
    Kind { name: "replace that grows", make: |n| filled("'aaaaaaaa'", ".Replace('a','aaaaaaaaaa')", n) },
    Kind { name: "replace of half a text", make: replace_of_half },
    Kind { name: "split at many characters", make: split_at_many },
    Kind { name: "split everywhere", make: |n| filled("$a='{0,60000}' -f 'a';", "$b=$a -split '';", n) },
    Kind { name: "expressions of classes", make: class_expressions },
    Kind { name: "one expression", make: |n| filled("", "'abc'-replace'\\w\\pL','c';", n) },
    Kind { name: "expression that fails late", make: late_expression },
    Kind { name: "expression that looks ahead", make: looking_expression },
    Kind { name: "expression with many states", make: many_states },
    Kind { name: "expression with groups", make: grouped_expression },
    Kind { name: "items appended", make: |n| filled("$x=('a' -f 'b');$l=(1..44000);", "$l+=1;", n) },
    Kind { name: "texts appended", make: |n| filled("$a='{0,60000}' -f 'a';", "$b=$a;$b+='c';", n) },
    Kind {
        name: "list reversed",
        make: |n| filled("$x=('a' -f 'b');$l=(1..60000);", "[array]::Reverse($l);", n),
    },
    Kind {
        name: "shared list reversed",
        make: |n| filled("$l=(1..60000);", "$m=$l;[array]::Reverse($m);", n),
    },
    Kind { name: "value of value", make: |n| filled("$x=('{0,65000}' -f 'b' -split '')", ".value", n) },
    Kind { name: "lists in lists", make: |n| filled("$a=(1,2);", "$a=($a,$a);-join $a;", n) },
    Kind { name: "lists of a list", make: |n| filled("$a='x','y'*1;$l=(1..60000);", "-join($l,$l,$l);", n) },
    Kind { name: "list as text", make: |n| filled("$l=(1..60000);", "\"$l\";", n) },
    Kind { name: "text in strings", make: |n| filled("$a='{0,9000}' -f '';", "\"$a$a$a$a$a$a$a\";", n) },
    Kind { name: "stream of no text", make: |n| filled(&no_text(), "$b=($a);$a;", n) },
    Kind {
        name: "bombs",
        make: |n| filled("FromBase64String;", &format!("'{}';", base64(&bomb(40_000))), n),
    },
    Kind { name: "stream of empty blocks", make: empty_blocks },
    Kind { name: "stream of empty tables", make: empty_tables },
    Kind {
        name: "base64 that is none",
        make: |n| filled("base64;", "'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA//';", n),
    },
    Kind { name: "one long base64", make: |n| format!("powershell -e {}", "AAAA".repeat(n / 4)) },
    Kind { name: "sum", make: |n| filled("", "'a'+", n) },
    Kind { name: "sums", make: |n| filled("", "('a'+'b');", n) },
    Kind { name: "sum with a variable", make: |n| filled("$a='b';", "$a=$a+'c';", n) },
    Kind { name: "open parentheses", make: |n| "(".repeat(n) },
    Kind { name: "nested sums", make: |n| format!("{}'a'+'b'{}", "(".repeat(n / 2), ")".repeat(n / 2)) },
    Kind { name: "deep expressions", make: |n| filled("", "((((((((((((((((((((((1)+$u", n) },
    Kind { name: "unary operators", make: |n| filled("", "-join ", n) },
    Kind { name: "casts", make: |n| filled("", "[char[]]", n) },
    Kind { name: "characters", make: |n| filled("", "[char]101+", n) },
    Kind {
        name: "numbers by a pipeline",
        make: |n| format!("-join(({}1)|%{{[char]$_}})", "101,".repeat(n / 4)),
    },
    Kind { name: "pipelines", make: |n| filled("((1..60000)", "|%{$_,$_}", n) },
    Kind { name: "bodies", make: |n| filled("", "((1..60000)|%{$_});", n) },
    Kind { name: "long body", make: |n| format!("((1..60000)|%{{{}1}})", "$_ -bxor ".repeat(n / 9)) },
    Kind { name: "ranges", make: |n| filled("", "(1..65535)+", n) },
    // These two were found by a search with mutations.
    Kind { name: "ranges of ranges", make: |n| filled("", "(1..60000)..", n) },
    Kind { name: "casts of ranges", make: |n| filled("", "\"|%{'$_0x41[char[]](1..60000)", n) },
    Kind { name: "indices", make: |n| filled("$a='abc';", "$a[(0..60000)];", n) },
    Kind { name: "formats", make: |n| format!("('{}' -f 'a')", "{0}".repeat(n / 3)) },
    Kind { name: "formats of lists", make: |n| format!("$l=,(1..9000);('{}' -f $l)", "{0}".repeat(n / 3)) },
    Kind { name: "numbers of blanks", make: |n| filled("$a='{0,60000}' -f '';", "[int]$a;", n) },
    Kind { name: "variables", make: variables },
    Kind { name: "braced variables", make: |n| filled("('a'+'b');", "${`````````````````````a", n) },
    Kind { name: "quotation marks", make: |n| filled("('a'+'b')", "'\"", n) },
    Kind { name: "dollars", make: |n| filled("('a'+'b')", "\"$(", n) },
    Kind { name: "here-strings", make: |n| filled("('a'+'b')", "@'\n", n) },
    Kind { name: "comments", make: |n| filled("('a'+'b')", "<#####", n) },
    Kind { name: "blanks", make: |n| format!("('a'+'b'){}", " ".repeat(n)) },
    Kind { name: "blanks before expressions", make: |n| filled("", "                ('a'+'b')", n) },
    Kind { name: "signs", make: |n| filled("('a'+'b')", "\u{4E2D}\u{6587}=*", n) },
    Kind { name: "dashes", make: |n| filled("('a'+'b')", " -e -enc -ec", n) },
    Kind { name: "backticks", make: |n| "`".repeat(n) },
    Kind { name: "backticked words", make: |n| filled("", "E`nter-PSSess`ion ", n) },
    Kind { name: "dashes of other kinds", make: |n| filled("", "a\u{2013}b\u{2019}", n) },
    Kind { name: "tabs", make: |n| filled("Enter-PSSess`ion", "a\tb  c", n) },
    Kind { name: "hits", make: |n| filled("", "Enter\u{2013}PSSession -ComputerName a;", n) },
    Kind {
        name: "hits in expressions",
        make: |n| filled("", "iex ('Enter-PS'+'Session -ComputerName a');", n),
    },
    Kind { name: "words that are needles", make: needles },
    Kind { name: "calls", make: |n| filled("", "etsn a;", n) },
    Kind { name: "calls with parameters", make: |n| filled("", "etsn -c a -p b -au x -cr y -se z;", n) },
    Kind { name: "nested calls", make: |n| filled("", "etsn a (", n) },
    Kind { name: "nested calls in braces", make: |n| filled("", "nsn a {", n) },
    Kind { name: "scripts in strings", make: scripts_in_strings },
    Kind { name: "strings for Invoke-Expression", make: |n| filled("", "iex 'etsn a';", n) },
    Kind { name: "base64 by name", make: |n| filled("('a'+'b');", "base64 ", n) },
    Kind { name: "matches by name", make: |n| filled("", "::matches(", n) },
    Kind { name: "marks", make: |n| filled("", "'+'-f(')+($a)[ch-re::re", n) },
    Kind { name: "one line of marks", make: |n| filled("", "x`y ", n) },
];

fn filled(before: &str, again: &str, units: usize) -> String {
    let (own, each) = (before.encode_utf16().count(), again.encode_utf16().count());
    format!("{before}{}", again.repeat((units.saturating_sub(own) / each).max(1)))
}

fn padded_replace(units: usize) -> String {
    format!("$x=('{{0,{}}}' -f '') -replace ('{{0,{}}}' -f 'b'),'x'#{}", 340_000, 170_000, "y".repeat(units))
}

fn padded_split(units: usize) -> String {
    format!("$x=('{{0,{}}}' -f '') -split ('{{0,{}}}' -f 'b')#{}", 60_000, 30_000, "y".repeat(units))
}

fn replace_of_half(units: usize) -> String {
    filled("$a='{0,60000}' -f '';$b='{0,30000}' -f 'b';", "$a.Replace($b,'c');", units)
}

fn split_at_many(units: usize) -> String {
    let many: String = (0..units as u32 / 2).filter_map(|n| char::from_u32(0x4E00 + n % 20_000)).collect();
    filled(&format!("$a='{{0,60000}}' -f '';$s='{many}';"), "$a.Split($s);", units)
}

fn class_expressions(units: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= units {
            break;
        }
        let _ = write!(text, "$x='a' -replace '{}{number}','b';", "\\pL".repeat(80));
    }
    text
}

fn late_expression(units: usize) -> String {
    filled("$a='{0,60000}' -f 'b';", "$a -replace '( | | )*c','';", units)
}

fn looking_expression(units: usize) -> String {
    format!(
        "$a=('{{0,60000}}' -f '').Replace(' ','A');$a -replace '.*[^A-Z]|[A-Z]','b'#{}",
        "y".repeat(units)
    )
}

fn many_states(units: usize) -> String {
    filled("$a=('{0,60000}' -f '').Replace(' ','ab');", "$a -replace '(a|b)[ab]{200}c','';", units)
}

fn grouped_expression(units: usize) -> String {
    let groups = "(a)?".repeat(50);
    filled("$a=('{0,20000}' -f '').Replace(' ','ab');", &format!("$a -replace '{groups}b','$1$2$3';"), units)
}

fn variables(units: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= units {
            break;
        }
        let _ = write!(text, "$v{}='x';", number % 300);
    }
    text
}

fn scripts_in_strings(units: usize) -> String {
    let inner = "etsn a;".repeat(units / 40 + 1);
    filled("", &format!("iex 'iex ''iex ''''{inner}'''''';"), units)
}

fn needles(units: usize) -> String {
    filled("", "Enter-PSSession \u{2013}Co\u{6D} Invoke-Mimikatz -ComputerName DownloadString ", units)
}

/// Base64 of a compressed stream that unpacks to many bytes that are not text.
fn no_text() -> String {
    format!("$x=('a' -f 'b');$a=[Convert]::FromBase64String('{}');", base64(&bomb_of(0x80, 60_000)))
}

fn bomb(len: usize) -> Vec<u8> {
    bomb_of(b'a', len)
}

/// Deflate (RFC 1951): a block with the fixed code, one literal and copies of 258 bytes.
fn bomb_of(byte: u8, len: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.low_first(0b011, 3);
    if byte < 144 {
        bits.high_first(0x30 + u32::from(byte), 8);
    } else {
        bits.high_first(0x190 + u32::from(byte) - 144, 9);
    }
    for _ in 0..len / 258 {
        bits.high_first(0b1100_0101, 8);
        bits.high_first(0, 5);
    }
    bits.high_first(0, 7);
    bits.bytes
}

/// Empty blocks with the fixed code.
fn empty_blocks(units: usize) -> String {
    let mut bits = Bits::default();
    for _ in 0..units * 6 / 10 {
        bits.low_first(0b010, 3);
        bits.high_first(0, 7);
    }
    format!("FromBase64String;('a'+'b');'{}'", base64(&bits.bytes))
}

/// Empty blocks with dynamic codes.
fn empty_tables(units: usize) -> String {
    let mut bits = Bits::default();
    while bits.bytes.len() < units * 3 / 4 {
        bits.low_first(0b100, 3);
        // 257 codes for literals, one for distances, 18 lengths of code lengths.
        bits.low_first(0, 5);
        bits.low_first(0, 5);
        bits.low_first(14, 4);
        // In the order 16, 17, 18, 0, …, 1: the code lengths 18 and 1 have codes of one bit.
        for number in 0..18 {
            bits.low_first(u32::from(number == 2 || number == 17), 3);
        }
        // Codes: 1 is 0, 18 is 1. 256 zeros (138 and 118), then one length of 1 for the end, one for a distance.
        bits.high_first(1, 1);
        bits.low_first(127, 7);
        bits.high_first(1, 1);
        bits.low_first(107, 7);
        bits.high_first(0, 1);
        bits.high_first(0, 1);
        // The end.
        bits.high_first(0, 1);
    }
    format!("FromBase64String;('a'+'b');'{}'", base64(&bits.bytes))
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, bit: u32) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= (bit as u8 & 1) << (self.used % 8);
        }
        self.used += 1;
    }

    fn low_first(&mut self, value: u32, bits: u32) {
        (0..bits).for_each(|bit| self.push(value >> bit));
    }

    fn high_first(&mut self, value: u32, bits: u32) {
        (0..bits).rev().for_each(|bit| self.push(value >> bit));
    }
}

/// RFC 4648, without padding.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let all = part.iter().chain(&[0; 2]).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        (0..=part.len())
            .map(move |at| char::from(SIGNS[(all >> (18 - 6 * at) & 63) as usize]))
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// Makes a script of about this many units as administrators write them, with some expressions as in obfuscated scripts.
pub fn ordinary(units: usize) -> String {
    const PLAIN: &str = r#"
function Get-ServerReport {
    [CmdletBinding()]
    param([Parameter(Mandatory = $true)][string[]]$ComputerName, [int]$Days = 7, [switch]$Detailed)
    # Collects disks, services and events of each server for the weekly report.
    foreach ($computer in $ComputerName) {
        try {
            $disks = Get-WmiObject -Class Win32_LogicalDisk -ComputerName $computer -Filter "DriveType=3" -ErrorAction Stop
            foreach ($disk in $disks) {
                $free = [math]::Round($disk.FreeSpace / 1GB, 2)
                $line = "{0};{1};{2} GB free of {3} GB" -f $computer, $disk.DeviceID, $free, [math]::Round($disk.Size / 1GB, 2)
                Add-Content -Path "C:\Reports\disks.csv" -Value $line
            }
            $services = Get-Service -ComputerName $computer | Where-Object { $_.StartType -eq 'Automatic' -and $_.Status -ne 'Running' }
            $services | ForEach-Object { Write-Verbose "Service $($_.Name) on $computer is stopped" }
        } catch {
            Write-Warning ("Cannot reach " + $computer + ": " + $_.Exception.Message)
        }
    }
}
$servers = 'srv01','srv02', 'db07'
Get-ServerReport -ComputerName $servers `
    -Days 14 -Detailed
"#;
    const EXPRESSIONS: &str = r#"
$u = 'ht' + 'tp://' + 'intra' + 'net/' ; $v = ("{2}{0}{1}" -f 'wnload','String','Do')
$w = -join ('78_101_119_45_79_98_106'.Split('_') | % { [char][int]$_ })
& ($VerbosePreference.ToString()[1,3]+'x'-join'') ('Wr'+'ite-Ho'+'st done'.Replace('done','ready')) ; Wri`te-Out`put $u$v
"#;
    let mut text = String::new();
    while text.len() < units {
        text.push_str(PLAIN);
        text.push_str(PLAIN);
        text.push_str(EXPRESSIONS);
    }
    text.truncate(units);
    text
}
