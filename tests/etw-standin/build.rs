//! Passes the names of functions that are forwarded to the real advapi32 to the linker.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=forwards.def");
    let is = |name: &str, expected: &str| var(name).is_ok_and(|value| value == expected);
    if is("CARGO_CFG_TARGET_OS", "windows") {
        let path = format!("{}/forwards.def", var("CARGO_MANIFEST_DIR").unwrap_or_default());
        let option = if is("CARGO_CFG_TARGET_ENV", "msvc") { "/DEF:" } else { "" };
        println!("cargo::rustc-cdylib-link-arg={option}{path}");
    }
}
