//! Reading YAML: the one module that touches the YAML library.
//!
//! The text is foreign. What it may cost is bounded (bytes, nesting, nodes, and what aliases expand
//! to), a key may stand only once in a mapping, and a document that cannot be read does not hide the
//! other documents of its file.
//!
//! Scalars are read as YAML 1.2 has them: `true` and `false` are the only booleans, so that `on: push`
//! has the key `on`, and `yes`, `no`, `on` and `off` are strings. A number that starts with a
//! superfluous zero or has an underscore in it stays the text that it is.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Error, Options, Spanned, UserMessageFormatter};

use super::problem::{Problem, shown};

/// What a text may cost to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YamlLimits {
    /// The most bytes of a file. 1 MiB by default.
    pub bytes: usize,
    /// The deepest nesting of mappings and lists. 64 by default.
    pub depth: usize,
    /// The most nodes of a document, with what its aliases stand for. 50,000 by default.
    pub nodes: usize,
    /// The most documents of a file. 256 by default.
    pub documents: usize,
}

impl Default for YamlLimits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 64, nodes: 50_000, documents: 256 }
    }
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it says.
    pub(crate) value: Value,
    /// Where each part of it stands.
    pub(crate) places: Place,
}

/// Where a value stands in its file.
#[derive(Debug, Default)]
pub(crate) struct Place {
    value: Position,
    key: Option<Position>,
    parts: Parts,
}

#[derive(Debug, Default)]
enum Parts {
    #[default]
    None,
    Items(Vec<Place>),
    Fields(BTreeMap<String, Place>),
}

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    /// Where the value itself begins.
    pub(crate) fn position(&self) -> Position {
        self.value
    }

    /// Where the field of that path stands, or the nearest part of the document around it. The
    /// position is that of its name with `name` and for mappings and lists, else of its value.
    pub(crate) fn find(&self, field: &str, name: bool) -> Position {
        let mut place = self;
        let mut rest = field;
        while !rest.is_empty() {
            let next = match &place.parts {
                Parts::None => None,
                Parts::Items(items) => rest.strip_prefix('[').and_then(|rest| {
                    let (index, rest) = rest.split_once(']')?;
                    Some((items.get(index.parse::<usize>().ok()?)?, rest))
                }),
                Parts::Fields(fields) => step(fields, rest.strip_prefix('.').unwrap_or(rest)),
            };
            let Some((inner, after)) = next else { break };
            (place, rest) = (inner, after);
        }
        match place.key {
            Some(position) if name || !matches!(place.parts, Parts::None) => position,
            _ => place.value,
        }
    }

    fn moved_down(&mut self, lines: u32) {
        self.value.line = self.value.line.saturating_add(lines);
        if let Some(key) = &mut self.key {
            key.line = key.line.saturating_add(lines);
        }
        match &mut self.parts {
            Parts::None => {}
            Parts::Items(items) => items.iter_mut().for_each(|item| item.moved_down(lines)),
            Parts::Fields(fields) => fields.values_mut().for_each(|one| one.moved_down(lines)),
        }
    }
}

/// The field that a path begins with, and the rest of the path. Names may themselves hold dots
/// (labels do), so the longest name that fits is taken.
fn step<'a, 'b>(
    fields: &'a BTreeMap<String, Place>,
    path: &'b str,
) -> Option<(&'a Place, &'b str)> {
    fields
        .iter()
        .filter_map(|(name, place)| {
            let rest = path.strip_prefix(name.as_str())?;
            let ends = rest.is_empty() || rest.starts_with(['.', '[']);
            ends.then_some((name.len(), place, rest))
        })
        .max_by_key(|(length, ..)| *length)
        .map(|(_, place, rest)| (place, rest))
}

/// What reading a document of the greatest depth takes, and more: a level takes 45 KiB of a debug
/// build's stack, and the caller's may be that of a worker with 2 MiB.
const READER_STACK: usize = 8 << 20;

/// Reads all documents of a text. A document that says nothing is left out.
pub(crate) fn read(text: &str, limits: YamlLimits) -> (Vec<Document>, Vec<Problem>) {
    let refused = |why: &str| {
        let problem = Problem::at("", format!("the file could not be read: {why}"));
        (Vec::new(), vec![problem])
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(READER_STACK);
        match reader.spawn_scoped(scope, || read_here(text, limits)) {
            Ok(read) => read.join().unwrap_or_else(|_| refused("the reader panicked")),
            Err(error) => refused(&format!("no thread can be started: {error}")),
        }
    })
}

fn read_here(text: &str, limits: YamlLimits) -> (Vec<Document>, Vec<Problem>) {
    if text.len() > limits.bytes {
        let problem = Problem::at(
            "",
            format!("the file has {} bytes; at most {} are read", text.len(), limits.bytes),
        );
        return (Vec::new(), vec![problem.help("split it into several files")]);
    }
    let chunks = documents(text);
    if chunks.len() > limits.documents {
        let problem =
            Problem::at("", format!("the file has more than {} documents", limits.documents));
        return (Vec::new(), vec![problem.help("split it into several files")]);
    }
    let mut read = Vec::new();
    let mut problems = Vec::new();
    for (first_line, chunk) in chunks {
        match serde_saphyr::from_str_with_options::<Spanned<Node>>(chunk, options(limits)) {
            Ok(Spanned { value: Node { value: Value::Null, .. }, .. }) => {}
            Ok(Spanned { value: Node { value, parts }, referenced, .. }) => {
                let mut places = Place { value: referenced.into(), key: None, parts };
                places.moved_down(first_line);
                read.push(Document { value, places });
            }
            Err(error) => problems.push(syntax_problem(&error, first_line, limits)),
        }
    }
    (read, problems)
}

/// Splits a text at its document markers, which YAML allows nowhere else at the start of a line.
/// Each part comes with the number of lines before it.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut offset, mut preamble) = (0, true);
    for (number, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        let marker = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        if marker("---") && !preamble {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, number);
        } else if marker("...") {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset + line.len(), number + 1);
        }
        // Directives and comments before a document's marker belong to that document.
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']);
        preamble = if marker("...") { true } else { preamble && blank && !marker("---") };
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts.retain(|(_, part)| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    parts
}

fn options(limits: YamlLimits) -> Options {
    let mut options = Options::default();
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.reject_unsupported_tags = true;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = limits.nodes;
    options.alias_limits.max_replay_stack_depth = limits.depth.min(16);
    if let Some(budget) = &mut options.budget {
        budget.max_depth = limits.depth;
        budget.flow_nesting_limit = limits.depth;
        budget.max_nodes = limits.nodes;
        budget.max_events = limits.nodes.saturating_mul(4);
        budget.max_recorded_anchor_events = limits.nodes.saturating_mul(4);
        budget.max_recorded_anchor_bytes = limits.bytes.saturating_mul(4);
        budget.max_total_scalar_bytes = limits.bytes;
        budget.max_aliases = 1_000;
        budget.max_anchors = 1_000;
        budget.max_merge_keys = 1_000;
        budget.max_documents = 2;
    }
    options
}

fn syntax_problem(error: &Error, lines_before: u32, limits: YamlLimits) -> Problem {
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let mut problem = match cause {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            Problem::at("", format!("the key {} stands twice in one mapping", shown(key)))
                .help("keep one of them")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => Problem::at(
            "",
            "the document is too large, too deeply nested, or its aliases stand for too much",
        )
        .help(format!(
            "a document has at most {} levels and {} values, with what its aliases stand for",
            limits.depth, limits.nodes
        )),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            let text = text.split(" at line ").next().unwrap_or_default();
            Problem::at("", format!("this is not readable YAML: {text}"))
        }
    };
    if let Some(location) = cause.location() {
        let position = Position::from(location);
        if position.line > 0 {
            problem.line = Some(position.line.saturating_add(lines_before));
            problem.column = Some(position.column);
        }
    }
    problem
}

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: small(location.line()), column: small(location.column()) }
    }
}

/// A value with the places of its parts.
struct Node {
    value: Value,
    parts: Parts,
}

impl Node {
    fn leaf(value: Value) -> Self {
        Self { value, parts: Parts::None }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list, a string, a number, a boolean or null")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::leaf(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value)
            .map(|number| Node::leaf(Value::Number(number)))
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::leaf(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::leaf(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        let mut places = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            values.push(item.value.value);
            places.push(Place {
                value: item.referenced.into(),
                key: None,
                parts: item.value.parts,
            });
        }
        Ok(Node { value: Value::Array(values), parts: Parts::Items(places) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut values = Map::new();
        let mut places = BTreeMap::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let item = entries.next_value::<Spanned<Node>>()?;
            if values.contains_key(&key.value) {
                return Err(A::Error::custom(format_args!(
                    "the key {} stands twice in one mapping",
                    shown(&key.value)
                )));
            }
            let place = Place {
                value: item.referenced.into(),
                key: Some(key.referenced.into()),
                parts: item.value.parts,
            };
            places.insert(key.value.clone(), place);
            values.insert(key.value, item.value.value);
        }
        Ok(Node { value: Value::Object(values), parts: Parts::Fields(places) })
    }
}

#[cfg(test)]
mod tests;
