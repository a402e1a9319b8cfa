//! The demo trace equals the generated one and gives the detections that the README shows.

use etwsieve_tests::program::{Program, run};
use etwsieve_tests::{corpus, demo};

const PROGRAM: Program = Program::Etwsieve;

#[test]
fn the_file_in_the_repository_equals_the_generated_one() {
    let file = std::fs::read(corpus::repository().join(demo::PATH)).unwrap();
    assert!(file == demo::trace(), "generate it again with: cargo run -p etwsieve-tests --bin make-demo");
}

#[test]
fn the_first_command_of_the_readme_finds_the_remote_sessions() {
    let path = corpus::repository().join(demo::PATH);
    let run = run(PROGRAM, ["replay".as_ref(), path.as_os_str()]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines = run.lines();
    assert_eq!(lines.len(), demo::DETECTIONS);
    for line in &lines {
        let text = line["script_block_text"].as_str().unwrap().to_ascii_lowercase();
        assert!(text.contains("enter-pssession") && text.contains("-computername"), "{text}");
        assert_eq!(line["user_sid"], "S-1-5-21-1004336348-1177238915-682003330-1104");
    }
}
