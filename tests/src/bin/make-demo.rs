//! Writes the demo trace to its path in the repository.

use etwsieve_tests::{corpus, demo};

fn main() -> std::io::Result<()> {
    let path = corpus::repository().join(demo::PATH);
    std::fs::write(&path, demo::trace())?;
    println!("wrote {}", demo::PATH);
    Ok(())
}
