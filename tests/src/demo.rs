//! The demo trace: an hour of a small server, with everyday administration and remote sessions.
//!
//! The scripts were written for this project. `cargo run -p etwsieve-tests --bin make-demo` generates the file; a test
//! compares it with the one in the repository.

use crate::writer::{EventSpec, TraceWriter, module_logging, script_block};
use etwsieve_etl::FileTime;
use uuid::Uuid;

/// Path of the trace, relative to the root of the repository.
pub const PATH: &str = "tests/demo/demo.etl";
/// Number of detections of the built-in rule.
pub const DETECTIONS: usize = 2;

const SECOND: u64 = 10_000_000;
/// Domain SID of an administrator, S-1-5-21-1004336348-1177238915-682003330-1104.
const ADMIN: [u8; 28] = [
    1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0xDC, 0xF4, 0xDC, 0x3B, 0x83, 0x3D, 0x2B, 0x46, 0x82, 0x8B, 0xA6,
    0x28, 0x50, 0x04, 0, 0,
];
/// S-1-5-18, the local system.
const SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];

/// A script of the demo: seconds after the start, process, SID, file, text.
type Script = (u64, u32, &'static [u8], &'static str, &'static str);

const BACKUP: &str = r"C:\Ops\Backup-Shares.ps1";
const SCRIPTS: &[Script] = &[
    (2, 4812, &ADMIN, "", "prompt"),
    (9, 4812, &ADMIN, "", "Get-Service | Where-Object Status -eq 'Stopped' | Sort-Object DisplayName"),
    (31, 4812, &ADMIN, "", "Get-EventLog -LogName System -Newest 50 -EntryType Error | Format-List"),
    (
        62,
        1920,
        &SYSTEM,
        BACKUP,
        "param([string[]] $Share = @('D$', 'E$'), [string] $Target = '\\\\vault\\nightly')\r\n\r\nforeach ($name in $Share) {\r\n    $from = \"\\\\$env:COMPUTERNAME\\$name\"\r\n    $to = Join-Path $Target (Get-Date -Format yyyy-MM-dd)\r\n    New-Item -ItemType Directory -Force -Path $to | Out-Null\r\n    robocopy $from $to /MIR /R:2 /W:5 /NP /LOG+:C:\\Ops\\backup.log\r\n    if ($LASTEXITCODE -ge 8) {\r\n        Write-EventLog -LogName Application -Source Backup -EventId 9001 -EntryType Error -Message \"robocopy ended with $LASTEXITCODE for $name\"\r\n    }\r\n}\r\n",
    ),
    (
        95,
        4812,
        &ADMIN,
        "",
        "Get-ChildItem D:\\ -Recurse -File | Group-Object Extension | Sort-Object Count -Descending | Select-Object -First 10 Name, Count",
    ),
    (140, 4812, &ADMIN, "", "Get-Help Enter-PSSession -Examples"),
    (
        171,
        4812,
        &ADMIN,
        "",
        "Invoke-Command -ComputerName web01, web02 -ScriptBlock { Get-HotFix | Sort-Object InstalledOn | Select-Object -Last 3 }",
    ),
    (
        240,
        2204,
        &SYSTEM,
        r"C:\Ops\Watch-Disk.ps1",
        "$low = Get-CimInstance Win32_LogicalDisk -Filter 'DriveType = 3' | Where-Object { $_.FreeSpace / $_.Size -lt 0.1 }\r\nif ($low) { Send-MailMessage -To ops@example.com -From $env:COMPUTERNAME@example.com -Subject 'Disk nearly full' -Body ($low | Out-String) -SmtpServer mail }\r\n",
    ),
    (301, 4812, &ADMIN, "", "Test-NetConnection -ComputerName db07 -Port 5985"),
    (
        322,
        4812,
        &ADMIN,
        "",
        "Enter-PSSession -ComputerName db07.corp.example -Credential (Get-Credential corp\\svc-deploy)",
    ),
    (410, 4812, &ADMIN, "", "Get-LocalGroupMember Administrators | Export-Csv admins.csv -NoTypeInformation"),
    (
        500,
        7016,
        &ADMIN,
        r"C:\Users\mara\Desktop\jump.ps1",
        "# short cuts for the night shift\r\nfunction Jump {\r\n    param([Parameter(Mandatory)] [string] $Host1)\r\n    $options = @{ Credential = Get-Secret night-shift; Authentication = 'Kerberos' }\r\n    enter-pssession -computername $Host1 @options\r\n}\r\nJump db07\r\n",
    ),
    (
        655,
        1920,
        &SYSTEM,
        BACKUP,
        "Get-ChildItem C:\\Ops\\*.log | Where-Object LastWriteTime -lt (Get-Date).AddDays(-30) | Remove-Item",
    ),
];

/// Generates the trace.
///
/// # Panics
///
/// Never: its date is valid.
pub fn trace() -> Vec<u8> {
    let mut writer = TraceWriter::new().buffer_len(8 * 1024).processors(2);
    writer.start = FileTime::parse_iso("2026-03-02T21:04:11Z").expect("the date is well-formed");
    writer.logger_name = "etwsieve-demo".into();
    writer.log_file_name = r"C:\Traces\demo.etl".into();
    for (number, &(seconds, process, sid, path, text)) in (1u128..).zip(SCRIPTS) {
        // Invented, in the form of a version 4 GUID.
        let id = Uuid::from_u128(0x5E1E_C7ED_0000_4000_8000_0000_0000_0000 + number * 0x0001_0001_0001);
        let thread = process + 4 * number as u32;
        let payload = script_block(1, 1, text, &id.to_string(), Some(path));
        let event = EventSpec::powershell(4104, payload)
            .at(seconds * SECOND + 4_321 * number as u64)
            .by(process, thread)
            .on(number as u16 % 2);
        writer.push(event.sid(sid));
        if path.is_empty() && number % 3 == 0 {
            let context = format!(
                "        Severity = Informational\r\n        Host Name = ConsoleHost\r\n        Command Name = {}\r\n",
                text.split(' ').next().unwrap_or_default()
            );
            let payload =
                module_logging(context.as_str(), "", "CommandInvocation(Out-Default): \"Out-Default\"\r\n");
            let event =
                EventSpec::powershell(4103, payload).at(seconds * SECOND + SECOND / 2).by(process, thread);
            writer.push(event.sid(sid));
        }
    }
    writer.build()
}
