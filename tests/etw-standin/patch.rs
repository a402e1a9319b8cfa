//! Makes a copy of a Windows program that uses the ETW stand-in. `wine-runner` compiles it together with `imports.rs` of the
//! test library.
//!
//! `patch PROGRAM DLL COPY` ends with 0 if it has written the copy, and with 3 if the program does not need one.

use std::env::args_os;
use std::fs;
use std::process::ExitCode;

#[path = "../src/standin/imports.rs"]
#[allow(dead_code, reason = "a part is enough here")]
mod imports;

const NOT_NEEDED: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<_> = args_os().skip(1).collect();
    let [program, dll, copy] = &arguments[..] else {
        eprintln!("patch PROGRAM DLL COPY");
        return ExitCode::from(2);
    };
    let work = || -> Result<bool, Box<dyn std::error::Error>> {
        let mut bytes = fs::read(program)?;
        if !imports::uses_traces(&bytes)? {
            return Ok(false);
        }
        imports::rename(&mut bytes, "advapi32.dll", "etwstub1.dll", &fs::read(dll)?)?;
        fs::write(copy, bytes)?;
        Ok(true)
    };
    match work() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_NEEDED),
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
