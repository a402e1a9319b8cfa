//! A canary: a PowerShell process that runs a script block with a random word, so that `doctor` can prove that script
//! blocks arrive.
//!
//! Without a policy PowerShell logs only blocks that contain a word from its list of suspicious words (class
//! `SuspiciousContentChecker` in `CompiledScriptBlock.cs`), so the canary contains one, [`SUSPICIOUS_WORD`], in a
//! comment. If a policy disables logging, the canary does not arrive.

use super::policy::Edition;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The word that makes PowerShell log the block: a property of .NET types that both editions list. It consists of
/// letters only, because the scan of PowerShell 7 hashes only letters and hyphens, and never matches `kernel32`. It
/// must not be at the start of the block, where that scan misses a word.
pub const SUSPICIOUS_WORD: &str = "DeclaringType";
/// Maximum length of the random word in bytes.
pub const WORD_LEN_MAX: usize = 64;

/// Returns the script block with `word`.
///
/// # Errors
///
/// Invalid input unless `word` is 1 to 64 ASCII letters or digits, because it becomes part of a command line.
pub fn script(word: &str) -> io::Result<String> {
    if word.is_empty() || word.len() > WORD_LEN_MAX || !word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("invalid word {word:?}: the word of a canary has 1 to {WORD_LEN_MAX} letters or digits"),
        ));
    }
    Ok(format!("$null = 'etwsieve canary {word}' # {SUSPICIOUS_WORD}"))
}

/// Starts PowerShell with the canary. The caller waits for the child.
///
/// # Errors
///
/// Those of [`script`]; not found if the edition is not installed; the error of the system if the process cannot start.
pub fn spawn(edition: Edition, word: &str) -> io::Result<Child> {
    let script = script(word)?;
    let program = program(edition).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{edition} is not installed in its usual folder"))
    })?;
    Command::new(program)
        .args(["-NoLogo", "-NoProfile", "-NonInteractive", "-Command", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Returns the full path of an edition's program, or `None` if it is not installed. The search path is not used,
/// because the sensor may be elevated.
pub fn program(edition: Edition) -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let candidates = match edition {
        Edition::WindowsPowerShell => {
            vec![
                folder("SystemRoot").map(|root| root.join(r"System32\WindowsPowerShell\v1.0\powershell.exe")),
            ]
        }
        Edition::PowerShell7 => ["ProgramW6432", "ProgramFiles"]
            .map(|variable| folder(variable).map(|root| root.join(r"PowerShell\7\pwsh.exe")))
            .to_vec(),
    };
    candidates.into_iter().flatten().find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_has_the_hash_in_the_list_of_powershell() {
        let hash = SUSPICIOUS_WORD
            .bytes()
            .fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.to_ascii_lowercase().into()));
        assert_eq!(hash, 3_152_745_313);
        let script = script("a1").unwrap();
        assert!(script.find(SUSPICIOUS_WORD).unwrap() > 0);
    }

    #[test]
    fn only_letters_and_digits_reach_the_command_line() {
        for bad in ["", "a b", "'", "a;b", "a\n", "\u{e4}", &"a".repeat(65)] {
            assert_eq!(script(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(script(&"Z9".repeat(32)).unwrap().contains(&"Z9".repeat(32)));
    }

    #[test]
    fn an_edition_starts_or_is_not_found() {
        for edition in [Edition::WindowsPowerShell, Edition::PowerShell7] {
            match spawn(edition, "x7") {
                Ok(mut child) => {
                    let status = child.wait().unwrap();
                    println!("{edition}: {status}");
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{edition}: {error}"),
            }
        }
    }
}
