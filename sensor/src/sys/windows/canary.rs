//! A canary: a PowerShell process whose script block says a random word, so that the sensor can prove that it sees
//! what PowerShell runs.
//!
//! Where no policy is set PowerShell logs only blocks with a word from its own list of suspicious ones (class
//! `SuspiciousContentChecker` in `CompiledScriptBlock.cs`), so the canary holds one: [`SUSPICIOUS_WORD`]. It stands
//! in a comment and is harmless as such. Under a policy that turns logging off nothing helps.

use super::policy::Edition;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The word that makes PowerShell log the block: a property of .NET types, in the list of both editions, and of
/// letters only (the scan of PowerShell 7 hashes nothing but letters and hyphens, so that `kernel32` and its like
/// never match). It is not at the start of the block, where that scan misses a word.
pub const SUSPICIOUS_WORD: &str = "DeclaringType";
/// Longest word, in bytes.
pub const WORD_LEN_MAX: usize = 64;

/// The script block with `word`.
///
/// # Errors
///
/// Invalid input unless `word` is 1 to 64 ASCII letters or digits: nothing else may reach a command line.
pub fn script(word: &str) -> io::Result<String> {
    if word.is_empty() || word.len() > WORD_LEN_MAX || !word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the word of a canary is 1 to {WORD_LEN_MAX} letters or digits"),
        ));
    }
    Ok(format!("$null = 'etwsieve canary {word}' # {SUSPICIOUS_WORD}"))
}

/// Starts PowerShell with the canary. The caller waits for the child.
///
/// # Errors
///
/// As [`script`]; not found if the edition is not installed; what starting the process says.
pub fn spawn(edition: Edition, word: &str) -> io::Result<Child> {
    let script = script(word)?;
    let program = program(edition).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{edition} is not installed where it is looked for"))
    })?;
    Command::new(program)
        .args(["-NoLogo", "-NoProfile", "-NonInteractive", "-Command", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The program of an edition by its full path: the search path is not asked, since the sensor may be elevated.
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
    fn the_word_has_the_hash_that_powershell_compares_with() {
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
    fn an_installed_edition_starts() {
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
