//! YAML as a small tree with positions, within bounds.
//!
//! Scalars remain the strings that the author wrote: `no`, `1e3` and `0x10` are not converted. Anchors, aliases and
//! tags are recorded as flaws, and a rule that has any is rejected: rules do not need them, and aliases make small
//! files large.

use crate::error::{Located, PROBLEMS_MAX, Position, Problem};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashSet;

/// Maximum length of a rule file, in bytes.
pub const RULE_FILE_LEN_MAX: usize = 1 << 20;
/// Maximum nesting depth of lists and maps.
pub(crate) const YAML_DEPTH_MAX: usize = 32;
/// Maximum number of nodes in one document.
pub(crate) const YAML_NODES_MAX: usize = 50_000;

/// A value and its position.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text; `plain` if it was written without quotes, so that it can mean null or a number.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// Keys and values in the order of the file.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Returns the value of a key, if this is a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Returns the keys and values of a map; empty for anything else.
    pub(crate) fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Returns true for a plain `null` or `~`, or an empty value.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Returns a list's items, or the node itself as the only one.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// Describes the node in an error message.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".into(),
            Value::Scalar { text, .. } => format!("{:?}", text.chars().take(40).collect::<String>()),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }

    /// Returns the error for a node of the wrong type.
    pub(crate) fn form(&self, what: &str, expected: &'static str) -> Located {
        (self.at, Problem::Form { what: what.into(), expected, found: self.kind() })
    }
}

/// A document, with the uses of YAML features that rules must not have.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) flaws: Vec<Located>,
}

/// The documents of a file, without empty ones, and the errors that made others unreadable.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) documents: Vec<Document>,
    /// One per unreadable document.
    pub(crate) errors: Vec<Located>,
}

/// Parses every document of `text`. After an error it continues with the next line that starts a document, which is
/// unambiguous in YAML.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    if text.len() > RULE_FILE_LEN_MAX {
        let problem = Problem::TooLarge { what: "length of the file in bytes", max: RULE_FILE_LEN_MAX };
        parsed.errors.push((Position { line: 1, column: 1 }, problem));
        return parsed;
    }
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines_before = 0;
    while let Err((mut at, problem)) = documents(rest, lines_before, &mut parsed.documents) {
        let line = at.line;
        at.line += lines_before;
        parsed.errors.push((at, problem));
        if parsed.errors.len() == PROBLEMS_MAX {
            break;
        }
        let Some((lines, offset)) = next_document(rest, line) else { break };
        lines_before += lines;
        rest = &rest[offset..];
    }
    parsed
}

/// Returns the numbers of lines and bytes before the next line that starts a document, is not the first line, and is
/// not before `line`.
fn next_document(text: &str, line: usize) -> Option<(usize, usize)> {
    let mut offset = 0;
    let mut lines = 0;
    loop {
        let len = text[offset..].find(['\n', '\r'])?;
        offset += len + if text[offset + len..].starts_with("\r\n") { 2 } else { 1 };
        lines += 1;
        let own = &text[offset..];
        let is_start =
            own.strip_prefix("---").is_some_and(|rest| !rest.starts_with(|c: char| !c.is_whitespace()));
        if is_start && lines + 1 >= line {
            return Some((lines, offset));
        }
    }
}

/// Parses documents up to the first error, whose line counts from the start of `text`.
fn documents(text: &str, lines_before: usize, documents: &mut Vec<Document>) -> Result<(), Located> {
    let mut open: Vec<Open> = Vec::new();
    let mut nodes = 0;
    let mut flaws: Vec<Located> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| (position(*e.marker(), 0), Problem::Yaml(e.info().to_owned())))?;
        let at = position(span.start, lines_before);
        let here = position(span.start, 0);
        nodes += 1;
        if nodes > YAML_NODES_MAX {
            return Err((here, Problem::TooLarge { what: "number of YAML nodes", max: YAML_NODES_MAX }));
        }
        let mut flaw = |what: &str| {
            if flaws.len() < PROBLEMS_MAX {
                flaws.push((at, Problem::Unsupported(format!("YAML {what}"))));
            }
        };
        match &event {
            Event::Alias(_) => flaw("alias"),
            Event::Scalar(_, _, 1.., _) | Event::SequenceStart(1.., _) | Event::MappingStart(1.., _) => {
                flaw("anchor");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                flaw("tag");
            }
            _ => {}
        }
        let done = match event {
            Event::Alias(_) => Some(Node { at, value: Value::Scalar { text: String::new(), plain: false } }),
            Event::Scalar(text, style, ..) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                Some(Node { at, value })
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() == YAML_DEPTH_MAX {
                    return Err((
                        here,
                        Problem::TooLarge { what: "depth of YAML nesting", max: YAML_DEPTH_MAX },
                    ));
                }
                let is_list = matches!(event, Event::SequenceStart(..));
                let value = if is_list { Value::List(Vec::new()) } else { Value::Map(Vec::new()) };
                open.push(Open { node: Node { at, value }, key: None, keys: HashSet::new() });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.node),
            Event::DocumentStart(_) => {
                nodes = 0;
                flaws.clear();
                None
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
        };
        let Some(node) = done else { continue };
        match open.last_mut() {
            // An empty document, such as after a final `---`.
            None if node.is_null() => {}
            None => documents.push(Document { root: node, flaws: std::mem::take(&mut flaws) }),
            Some(parent) => {
                if let Some(flaw) = parent.take(node)
                    && flaws.len() < PROBLEMS_MAX
                {
                    flaws.push(flaw);
                }
            }
        }
    }
    Ok(())
}

fn position(marker: Marker, lines_before: usize) -> Position {
    Position { line: marker.line() + lines_before, column: marker.col() + 1 }
}

/// A list or map that is being read.
struct Open {
    node: Node,
    /// A key without its value yet, and its position. `None` for an invalid key, whose value is skipped.
    key: Option<(Option<String>, Position)>,
    /// The keys so far.
    keys: HashSet<String>,
}

impl Open {
    /// Adds a node as item, key or value. Returns an error if it is not allowed there.
    fn take(&mut self, node: Node) -> Option<Located> {
        match (&mut self.node.value, self.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((Some(key), at))) => {
                // A value has the position of its key.
                entries.push((key, Node { at, ..node }));
            }
            (Value::Map(_), None) => {
                let at = node.at;
                let Value::Scalar { text, .. } = node.value else {
                    self.key = Some((None, at));
                    return Some((at, Problem::Unsupported("a list or map as a YAML key".into())));
                };
                if !self.keys.insert(text.clone()) {
                    self.key = Some((None, at));
                    return Some((at, Problem::Yaml(format!("the key `{text}` appears twice"))));
                }
                self.key = Some((Some(text), at));
            }
            // The value of an invalid key.
            (Value::Map(_), Some((None, _))) | (Value::Scalar { .. }, _) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, parse};

    #[test]
    fn keeps_scalars_as_written_and_positions() {
        let documents = parse("a: no\nb:\n  - 0x10\n  - '~'\n  - ~\n---\nc: 1\n").documents;
        assert_eq!(documents.len(), 2);
        let first = &documents[0].root;
        assert_eq!(first.get("a").unwrap().text(), Some("no"));
        let list = first.get("b").unwrap().items();
        assert_eq!((list[0].text(), list[0].at.line, list[0].at.column), (Some("0x10"), 3, 5));
        assert_eq!(list[1].text(), Some("~"));
        assert!(list[2].is_null());
        let second = &documents[1].root;
        assert!(matches!(second.value, Value::Map(_)));
        assert_eq!(second.get("c").unwrap().at.line, 7);
    }

    #[test]
    fn unneeded_features_are_flaws() {
        let rows = [
            ("a: &x 1\n", 1, "anchor"),
            ("a: 2\nb: *x\n", 2, "unknown anchor"),
            ("a: !!str 1\n", 1, "tag"),
            ("a: 1\na: 2\n", 2, "twice"),
            ("[a]: 1\n", 1, "key"),
            ("a: [\n", 2, "YAML"),
        ];
        for (text, line, word) in rows {
            let parsed = parse(text);
            let (at, problem) = parsed
                .errors
                .first()
                .or_else(|| parsed.documents[0].flaws.first())
                .expect("the document has a problem");
            assert!(problem.to_string().contains(word), "{text:?}: {problem}");
            assert_eq!(at.line, line, "{text:?}: {problem}");
        }
        let deep = "[".repeat(40);
        assert!(parse(&deep).errors[0].1.to_string().contains("depth"));
    }

    #[test]
    fn empty_documents_are_ignored() {
        for text in
            ["", "---\n", "a: 1\n---\n", "---\n---\na: 1\n---\n# the end\n", "\u{feff}a: 1\n...\n---\n"]
        {
            let parsed = parse(text);
            assert_eq!(parsed.errors, [], "{text:?}");
            assert_eq!(parsed.documents.len(), usize::from(text.contains('a')), "{text:?}");
        }
    }

    #[test]
    fn an_error_hides_only_its_own_document() {
        let parsed = parse("a: 1\n---\nb: [\n---\nc: 1\n--- # next\nd: }\n--- \ne: 1\n");
        let lines: Vec<_> = parsed.errors.iter().map(|(at, _)| at.line).collect();
        assert_eq!(lines, [4, 7]);
        let lines: Vec<_> = parsed.documents.iter().map(|document| document.root.at.line).collect();
        assert_eq!(lines, [1, 5, 9]);
    }
}
