//! YAML as a small tree with line numbers, within bounds.
//!
//! Scalars stay the strings that the author wrote: `no`, `1e3` and `0x10` are not turned into something else.
//! Anchors, aliases and tags are refused: rules do not need them, and aliases make small files large.

use crate::error::{Located, Problem};
use saphyr_parser::{Event, Parser, ScalarStyle};

/// Longest rule file, in bytes.
pub const RULE_FILE_LEN_MAX: usize = 1 << 20;
/// Deepest nesting of lists and maps.
pub(crate) const YAML_DEPTH_MAX: usize = 32;
/// Most nodes in one document.
pub(crate) const YAML_NODES_MAX: usize = 50_000;

/// A value and the line on which it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// The text, and whether it stood without quotes (only then can it mean null or a number).
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// Keys with their lines, in the order of the file.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Looks a key up, if this is a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// A plain `null`, `~` or nothing at all.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A list's items, or the node itself as the only one.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// What this is, for an error message.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".into(),
            Value::Scalar { text, .. } => format!("{:?}", text.chars().take(40).collect::<String>()),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }

    /// The error for a node of the wrong form.
    pub(crate) fn form(&self, what: &str, expected: &'static str) -> Located {
        (self.line, Problem::Form { what: what.into(), expected, found: self.kind() })
    }
}

/// Parses every document of `text`.
///
/// # Errors
///
/// The documents before the error are lost with it: what follows a YAML error cannot be trusted.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Located> {
    if text.len() > RULE_FILE_LEN_MAX {
        return Err((1, Problem::TooLarge { what: "length of the file in bytes", max: RULE_FILE_LEN_MAX }));
    }
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut nodes = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| (e.marker().line(), Problem::Yaml(e.info().to_owned())))?;
        let line = span.start.line();
        let refuse = |what: &str| Err((line, Problem::Unsupported(format!("YAML {what}"))));
        nodes += 1;
        if nodes > YAML_NODES_MAX {
            return Err((line, Problem::TooLarge { what: "number of YAML nodes", max: YAML_NODES_MAX }));
        }
        let done = match event {
            Event::Alias(_) => return refuse("alias"),
            Event::Scalar(_, _, 1.., _) | Event::SequenceStart(1.., _) | Event::MappingStart(1.., _) => {
                return refuse("anchor");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("tag");
            }
            Event::Scalar(text, style, ..) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                Some(Node { line, value })
            }
            Event::SequenceStart(..) => open_one(&mut open, line, Value::List(Vec::new()))?,
            Event::MappingStart(..) => open_one(&mut open, line, Value::Map(Vec::new()))?,
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|o| o.node),
            Event::DocumentStart(_) => {
                nodes = 0;
                None
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
        };
        let Some(node) = done else { continue };
        match open.last_mut() {
            None => documents.push(node),
            Some(parent) => parent.take(node)?,
        }
    }
    Ok(documents)
}

/// A list or map whose end has not been seen.
struct Open {
    node: Node,
    /// A key that waits for its value, and its line.
    key: Option<(String, usize)>,
}

fn open_one(open: &mut Vec<Open>, line: usize, value: Value) -> Result<Option<Node>, Located> {
    if open.len() == YAML_DEPTH_MAX {
        return Err((line, Problem::TooLarge { what: "depth of YAML nesting", max: YAML_DEPTH_MAX }));
    }
    open.push(Open { node: Node { line, value }, key: None });
    Ok(None)
}

impl Open {
    fn take(&mut self, node: Node) -> Result<(), Located> {
        match (&mut self.node.value, self.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, line))) => {
                // A value is known by the line of its key.
                entries.push((key, Node { line, ..node }));
            }
            (Value::Map(entries), None) => {
                let Value::Scalar { text, .. } = node.value else {
                    return Err((node.line, Problem::Unsupported("a list or map as a YAML key".into())));
                };
                if entries.iter().any(|(name, _)| *name == text) {
                    return Err((node.line, Problem::Yaml(format!("key `{text}` stands here twice"))));
                }
                self.key = Some((text, node.line));
            }
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, parse};

    #[test]
    fn keeps_scalars_as_written_and_lines() {
        let documents = parse("a: no\nb:\n  - 0x10\n  - '~'\n  - ~\n---\nc: 1\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].get("a").unwrap().text(), Some("no"));
        let list = documents[0].get("b").unwrap().items();
        assert_eq!((list[0].text(), list[0].line), (Some("0x10"), 3));
        assert_eq!(list[1].text(), Some("~"));
        assert!(list[2].is_null());
        assert!(matches!(documents[1].value, Value::Map(_)));
        assert_eq!(documents[1].get("c").unwrap().line, 7);
    }

    #[test]
    fn refuses_what_rules_do_not_need() {
        let rows = [
            ("a: &x 1\n", 1, "anchor"),
            ("a:\n b: &x [1]\nc: *x\n", 2, "anchor"),
            ("a: !!str 1\n", 1, "tag"),
            ("a: 1\na: 2\n", 2, "twice"),
            ("[a]: 1\n", 1, "key"),
            ("a: [\n", 2, "YAML"),
        ];
        for (text, line, word) in rows {
            let (at, problem) = parse(text).unwrap_err();
            assert!(problem.to_string().contains(word), "{text:?}: {problem}");
            assert_eq!(at, line, "{text:?}: {problem}");
        }
        let deep = "[".repeat(40);
        assert!(parse(&deep).unwrap_err().1.to_string().contains("depth"));
    }
}
