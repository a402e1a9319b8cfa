//! The last test program of `cargo test --workspace`: reports which tests were skipped and what would enable them.
//!
//! It has no test harness, so its output is always shown.

use etwsieve_tests::requirements::ALL;

fn main() {
    // Programs that list tests expect a list, which is empty here.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let missing: Vec<_> =
        ALL.iter().filter_map(|requirement| Some((requirement, (requirement.missing)()?))).collect();
    println!("\nskipped tests: {}", if missing.is_empty() { "none" } else { "" });
    for (requirement, reason) in missing {
        println!("  {}", requirement.tests);
        println!("    because {reason}");
        println!("    to run them: {}", requirement.enable);
    }
    println!("ignored tests (measurements, generators, parts of other tests) are listed by:");
    println!("  cargo test --workspace -- --ignored --list\n");
}
