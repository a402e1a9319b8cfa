//! The documentation keeps its promises: sizes, links, paths, commands, and the tests that back its claims.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use etwsieve_tests::corpus::repository;
use etwsieve_tests::program::{self, Program};
use std::fs;
use std::path::{Path, PathBuf};

const README_LINES_MAX: usize = 120;
const README_COLUMNS_MAX: usize = 120;

/// Folders at the root of the repository. A path in backticks that starts with one of them must exist.
const FOLDERS: [&str; 8] =
    ["matcher/", "transport/", "sensor/", "tests/", "bench/", "docs/", ".ci/", ".github/"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page of the documentation.
fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md"]
            .iter()
            .map(|name| root.join(name))
            .collect();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    pages
}

/// The lines of a page with a flag: whether the line is inside a code block.
fn lines(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut in_code = false;
    text.lines().map(move |line| {
        if line.starts_with("```") {
            in_code = !in_code;
            return (true, line);
        }
        (in_code, line)
    })
}

/// The prose of a page: its paragraphs, and each row of its tables, without code blocks.
fn prose(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for (in_code, line) in lines(text) {
        if in_code || line.is_empty() || line.starts_with('|') {
            parts.push(String::new());
        }
        if !in_code {
            let part = parts.last_mut().unwrap();
            part.push_str(line);
            part.push(' ');
        }
    }
    parts
}

/// The texts between single backticks.
fn quoted(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// The targets of links, `[text](target)`, outside backticks.
fn links(prose: &str) -> Vec<String> {
    let plain: String = prose.split('`').step_by(2).collect();
    plain.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The anchor that a renderer gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn has_anchor(page: &str, wanted: &str) -> bool {
    lines(page).any(|(in_code, line)| {
        !in_code && line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == wanted
    })
}

#[test]
fn the_readme_is_short() {
    let readme = read(&repository().join("README.md"));
    assert!(readme.lines().count() <= README_LINES_MAX, "{} lines", readme.lines().count());
    for (number, line) in readme.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= README_COLUMNS_MAX, "line {} has {columns} columns", number + 1);
    }
}

/// The seconds that a program takes for all events of a record's race of programs.
fn seconds(record: &str, program: &str) -> f64 {
    let (_, race) = record.split_once("\n## programs: ").expect("the record has a race of programs");
    let row = race
        .lines()
        .find(|line| line.starts_with(&format!("| {program} |")))
        .expect("the race has the program");
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let number = |cell: usize| cells[cell].parse::<f64>().expect("a number");
    number(5) * number(9) / 1e9
}

#[test]
fn the_numbers_of_the_readme_are_those_of_the_record() {
    let root = repository();
    let (readme, benchmarks) = (read(&root.join("README.md")), read(&root.join("bench/README.md")));
    let newest =
        fs::read_dir(root.join("bench/record")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let record = read(&newest.join("report.md"));
    for (program, row) in [
        ("etwsieve replay", "| **`etwsieve replay`, default settings** | **"),
        ("etwsieve replay, events as recorded", "| `etwsieve replay --scope event --view raw` | "),
        ("rsigma", "| `rsigma` 0.23 on events decoded beforehand | "),
        ("dissect.etl", "| `dissect.etl` 3.14, reading the trace without any rule | "),
    ] {
        let shown = format!("{row}{:.2} s", seconds(&record, program));
        assert!(readme.contains(&shown), "the record says: {shown}");
    }
    for program in ["etwsieve replay", "rsigma"] {
        let shown = format!("{:.2} s", seconds(&record, program));
        assert!(readme.split("## Performance").next().unwrap().contains(&shown), "{program}: {shown}");
        assert!(benchmarks.contains(&shown), "{program}: {shown}");
    }
    // The total of the table that `tests/rules/detection.rs` measures: "| all | | 1272 | | | | 90.5 % |".
    let detection = read(&root.join("docs/detection.md"));
    let total = detection.lines().find(|line| line.starts_with("| all |")).expect("the table has a total");
    let cells: Vec<&str> = total.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let [_, variants, share] = cells[..] else { panic!("{total}") };
    assert!(readme.contains(&format!("**{share}**")), "{share}");
    let (thousands, rest) = variants.split_at(variants.len() - 3);
    assert!(readme.contains(&format!("{thousands},{rest} obfuscated")), "{variants}");
}

#[test]
fn links_and_paths_exist() {
    let root = repository();
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        let name = page.strip_prefix(&root).unwrap().display().to_string();
        for part in prose(&text) {
            for link in links(&part).iter().filter(|link| !link.contains("://")) {
                let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
                if !target.exists() || (!fragment.is_empty() && !has_anchor(&read(&target), fragment)) {
                    missing.push(format!("{name}: link {link}"));
                }
            }
            for path in quoted(&part).filter(|text| FOLDERS.iter().any(|folder| text.starts_with(folder))) {
                let path = path.split("::").next().unwrap();
                let is_path = path.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
                if is_path && !root.join(path).exists() {
                    missing.push(format!("{name}: path {path}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "these do not exist:\n{}", missing.join("\n"));
}

#[test]
fn tests_that_back_claims_exist() {
    let claims = read(&repository().join("docs/claims.md"));
    let mut count = 0;
    let mut missing = Vec::new();
    for line in claims.lines() {
        for (path, test) in quoted(line).filter_map(|text| text.split_once("::")) {
            if test == "test" {
                continue; // `file::test` explains the form.
            }
            count += 1;
            let file = fs::read_to_string(repository().join(path)).unwrap_or_default();
            if !file.contains(&format!("fn {test}(")) {
                missing.push(format!("{path}::{test}"));
            }
        }
    }
    assert!(count >= 30, "only {count} tests are named");
    assert!(missing.is_empty(), "these tests do not exist:\n{}", missing.join("\n"));
}

/// The configuration on the collector's page is the one that `etwsieve-collector config print` writes.
#[test]
fn the_collectors_page_shows_its_configuration() {
    let run = program::run(Program::Collector, ["config", "print"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let page = read(&repository().join("docs/collector.md"));
    let (_, rest) = page.split_once("<!-- config print: begin -->\n```toml\n").expect("the first mark");
    let (shown, _) = rest.split_once("```\n<!-- config print: end -->").expect("the second mark");
    assert_eq!(shown, run.stdout, "docs/collector.md shows what `etwsieve-collector config print` writes");
}

/// Splits the first command of a line as a shell does, without pipes, redirections and comments.
fn words(line: &str) -> Vec<&str> {
    let command = line.trim_start_matches("$ ").trim_start_matches("PS> ");
    let command = command.split(" #").next().unwrap().split(';').next().unwrap();
    let plain = command.split_whitespace().take_while(|word| !matches!(*word, "|" | ">" | "&"));
    plain.map(|word| word.trim_matches(['\'', '"'])).collect()
}

/// The commands of a page: lines of code blocks, and quotations in the prose.
fn commands(page: &str) -> Vec<String> {
    let mut commands: Vec<String> =
        lines(page).filter(|(in_code, _)| *in_code).map(|(_, line)| line.to_owned()).collect();
    commands.extend(prose(page).iter().flat_map(|part| quoted(part).map(str::to_owned).collect::<Vec<_>>()));
    commands
}

#[test]
fn commands_parse() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for command in commands(&read(&page)) {
            let (program, args) = match words(&command)[..] {
                ["etwsieve", ref args @ ..] | ["cargo", "run", "--release", "--", ref args @ ..] => {
                    (Program::Etwsieve, args.to_vec())
                }
                ["etwsieve-collector", ref args @ ..] => (Program::Collector, args.to_vec()),
                _ => continue,
            };
            count += 1;
            // With --help after them all arguments are parsed, and nothing is run.
            let run = program::run(program, args.into_iter().chain(["--help"]));
            if run.code != Some(0) {
                wrong.push(format!("{}: {command}\n{}", page.display(), run.stderr));
            }
        }
    }
    assert!(count >= 60, "only {count} commands are quoted");
    assert!(wrong.is_empty(), "these commands are wrong:\n{}", wrong.join("\n"));
}
