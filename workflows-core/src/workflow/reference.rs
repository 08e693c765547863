//! The grammar of `$(...)` references, and what they can refer to.

use std::fmt;

use serde_json::Value;

use super::problem::{did_you_mean, shown};
use crate::EventKind;

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// What stands for itself; `$$(` has become `$(`.
    Text(&'a str),
    /// What stands between `$(` and `)`, for us.
    Ours(&'a str),
    /// A variable that Tekton replaces, with `$(` and `)`.
    Tekton(&'a str),
}

/// Roots of the variables that Tekton itself replaces
/// (<https://tekton.dev/docs/pipelines/variables/>).
const TEKTON: [&str; 11] = [
    "context",
    "tasks",
    "finally",
    "workspaces",
    "results",
    "steps",
    "step",
    "inputs",
    "outputs",
    "artifacts",
    "credentials",
];

/// Roots of our own references.
const OURS: [&str; 7] = ["event", "body", "headers", "repos", "workflow", "run", "params"];

/// Takes a text apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let escaped = rest[..at].ends_with('$');
        if escaped {
            // `$$(`: the first of the two goes.
            push_text(&mut pieces, &rest[..at - 1]);
            push_text(&mut pieces, &rest[at..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        push_text(&mut pieces, &rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find(')') else {
            return Err(format!("{} has no closing `)`", shown(&rest[at..])));
        };
        let name = &inner[..end];
        if TEKTON.contains(&root_of(name)) {
            pieces.push(Piece::Tekton(&rest[at..at + end + 3]));
        } else {
            pieces.push(Piece::Ours(name));
        }
        rest = &inner[end + 1..];
    }
    push_text(&mut pieces, rest);
    Ok(pieces)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

fn root_of(name: &str) -> &str {
    name.split(['.', '[']).next().unwrap_or_default()
}

/// The references of ours in a text that is Tekton's, where we substitute nothing. What is no path
/// that we know may be a command of a shell, and is none.
pub(super) fn ours_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("$(").filter_map(|(at, _)| {
        if text[..at].ends_with('$') {
            return None;
        }
        let inner = &text[at + 2..];
        let name = &inner[..inner.find(')')?];
        let reference = Reference::parse(name).ok()?;
        let last = name.rsplit('.').next().unwrap_or_default();
        let known = match reference.root {
            Root::Event => event_content(&reference).is_ok(),
            Root::Body | Root::Headers => true,
            Root::Repos => REPO_FIELDS.contains(&last),
            Root::Workflow => WORKFLOW_FIELDS.contains(&last),
            Root::Run => RUN_FIELDS.contains(&last),
            Root::Params => false,
        };
        known.then_some(name)
    })
}

/// What `$(repos.<name>...)` can name.
pub(super) const REPO_FIELDS: [&str; 4] = ["url", "name", "revision", "connection"];
/// What `$(workflow...)` can name.
pub(super) const WORKFLOW_FIELDS: [&str; 2] = ["name", "trigger"];
/// What `$(run...)` can name.
pub(super) const RUN_FIELDS: [&str; 3] = ["key", "name", "attempt"];

/// What a reference begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Event,
    Body,
    Headers,
    Repos,
    Workflow,
    Run,
    Params,
}

impl Root {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "event" => Self::Event,
            "body" => Self::Body,
            "headers" => Self::Headers,
            "repos" => Self::Repos,
            "workflow" => Self::Workflow,
            "run" => Self::Run,
            "params" => Self::Params,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Repos => "repos",
            Self::Workflow => "workflow",
            Self::Run => "run",
            Self::Params => "params",
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(Box<str>),
    Index(usize),
}

/// A reference: a root, a path from there, and whether all items are meant (`[*]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) root: Root,
    pub(super) steps: Box<[Step]>,
    pub(super) star: bool,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$({}", self.path())?;
        f.write_str(if self.star { "[*])" } else { ")" })
    }
}

impl Reference {
    /// Reads what stands between `$(` and `)`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const LONGEST: usize = 500;
        let wrong = || {
            format!(
                "`$({text})` is no reference: it is made of names with '.' between them, such as \
                 $(event.head.sha), and may end with [0] or [*]; a `$(` that stands for itself is \
                 written `$$(`"
            )
        };
        if text.len() > LONGEST {
            return Err(format!("a reference has at most {LONGEST} characters"));
        }
        let name = root_of(text);
        let Some(root) = Root::parse(name) else {
            if text.is_empty() || !text.chars().all(|c| is_inner(c) || ".[]*\"'".contains(c)) {
                return Err(wrong());
            }
            let meant = did_you_mean(name, OURS);
            return Err(format!(
                "`$({text})` refers to nothing that is known{meant}; references begin with {}",
                OURS.join(", ")
            ));
        };
        let mut rest = text.get(name.len()..).unwrap_or_default();
        let mut steps = Vec::new();
        let mut star = false;
        while !rest.is_empty() && !star {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(|c| !is_inner(c)).unwrap_or(after.len());
                if end == 0 {
                    return Err(wrong());
                }
                steps.push(Step::Field(after[..end].into()));
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let (inner, after) = after.split_once(']').ok_or_else(wrong)?;
                let quoted = |quote: char| {
                    inner.strip_prefix(quote)?.strip_suffix(quote).filter(|name| !name.is_empty())
                };
                if inner == "*" {
                    star = true;
                } else if let Some(name) = quoted('"').or_else(|| quoted('\'')) {
                    steps.push(Step::Field(name.into()));
                } else {
                    steps.push(Step::Index(inner.parse().map_err(|_| wrong())?));
                }
                rest = after;
            } else {
                return Err(wrong());
            }
        }
        let first_is_field = matches!(steps.first(), Some(Step::Field(_)));
        if !rest.is_empty() || !first_is_field {
            return Err(wrong());
        }
        Ok(Self { root, steps: steps.into(), star })
    }

    /// The path as it is written, without `[*]`.
    pub(super) fn path(&self) -> String {
        let mut path = self.root.as_str().to_owned();
        for step in &self.steps {
            match step {
                Step::Field(name) if name.chars().all(is_inner) => {
                    path.push('.');
                    path.push_str(name);
                }
                Step::Field(name) => path.push_str(&format!("[\"{name}\"]")),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// The name of the first step.
    pub(super) fn first(&self) -> &str {
        match self.steps.first() {
            Some(Step::Field(name)) => name,
            _ => "",
        }
    }

    /// Follows the steps, from one of them on, into a value.
    pub(super) fn follow<'v>(&self, value: &'v Value, from: usize) -> Option<&'v Value> {
        let steps = self.steps.get(from..).unwrap_or_default();
        let found = steps.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get(&**name),
            Step::Index(index) => value.get(*index),
        })?;
        (!found.is_null()).then_some(found)
    }
}

fn is_inner(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// What stands at a path of the event ([`Event::view`](crate::Event::view)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A string, a number or a boolean.
    Scalar,
    /// A list of strings.
    List,
    /// Anything: it is not known before the event comes.
    Open,
}

use Content::{List, Scalar};

const EVENT_PATHS: [(&str, Content); 41] = [
    ("kind", Scalar),
    ("action", Scalar),
    ("actions", List),
    ("repo.connection", Scalar),
    ("repo.id", Scalar),
    ("repo.name", Scalar),
    ("repo.owner", Scalar),
    ("head.sha", Scalar),
    ("head.ref", Scalar),
    ("head.branch", Scalar),
    ("head.tag", Scalar),
    ("base.sha", Scalar),
    ("base.ref", Scalar),
    ("base.branch", Scalar),
    ("base.tag", Scalar),
    ("pull_request.number", Scalar),
    ("pull_request.title", Scalar),
    ("pull_request.author", Scalar),
    ("pull_request.draft", Scalar),
    ("pull_request.state", Scalar),
    ("pull_request.labels", List),
    ("pull_request.fork", Scalar),
    ("pull_request.url", Scalar),
    ("pull_request.head.sha", Scalar),
    ("pull_request.head.ref", Scalar),
    ("pull_request.head.branch", Scalar),
    ("pull_request.head.tag", Scalar),
    ("pull_request.base.sha", Scalar),
    ("pull_request.base.ref", Scalar),
    ("pull_request.base.branch", Scalar),
    ("pull_request.base.tag", Scalar),
    ("label", Scalar),
    ("comment.id", Scalar),
    ("comment.body", Scalar),
    ("comment.author", Scalar),
    ("comment.command", Scalar),
    ("comment.arguments", List),
    ("sender", Scalar),
    ("data", Content::Open),
    ("key", Scalar),
    ("time", Scalar),
];

/// What stands at a path of the event, or a sentence about why nothing can stand there.
pub(super) fn event_content(reference: &Reference) -> Result<Content, String> {
    let mut names = String::new();
    for (index, step) in reference.steps.iter().enumerate() {
        match step {
            Step::Field(name) => {
                if index > 0 {
                    names.push('.');
                }
                names.push_str(name);
            }
            Step::Index(_) => {
                let last = index + 1 == reference.steps.len() && !reference.star;
                let list = EVENT_PATHS.contains(&(names.as_str(), List));
                return if list && last { Ok(Scalar) } else { Err(unknown_event_path(&names)) };
            }
        }
        match EVENT_PATHS.iter().find(|(path, _)| *path == names) {
            Some((_, Content::Open)) => return Ok(Content::Open),
            Some((_, content)) if index + 1 == reference.steps.len() => return Ok(*content),
            _ => {}
        }
    }
    Err(unknown_event_path(&names))
}

fn unknown_event_path(names: &str) -> String {
    let prefix = format!("{names}.");
    let below: Vec<&str> = EVENT_PATHS
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(&prefix))
        .filter(|rest| !rest.contains('.'))
        .collect();
    if !below.is_empty() {
        return format!(
            "`event.{names}` is a mapping; name one of its fields: {}",
            below.join(", ")
        );
    }
    let meant = did_you_mean(names, EVENT_PATHS.iter().map(|(path, _)| *path));
    let meant = meant.replace('`', "`event.").replacen("`event.?", "`?", 1);
    format!("events have no `{names}`{meant}")
}

/// Whether events of a built-in kind never have a value at a path, whatever happens.
pub(super) fn never_has(kind: &EventKind, reference: &Reference) -> bool {
    let kind = kind.as_str();
    let about_pull_request = ["pull_request", "label", "comment"].contains(&kind);
    let free = kind == "manual" || !EventKind::new(kind).is_built_in();
    match reference.root {
        _ if free => false,
        Root::Body | Root::Headers => kind == "schedule",
        Root::Event => match reference.first() {
            "pull_request" => !about_pull_request,
            "label" => kind != "label",
            "comment" => kind != "comment",
            "sender" => kind == "schedule",
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_once_from_left_to_right() {
        let text = "a $(event.kind)$$(date) $(context.pipelineRun.name) $ ( $$$(x)";
        assert_eq!(
            pieces(text).unwrap(),
            [
                Piece::Text("a "),
                Piece::Ours("event.kind"),
                Piece::Text("$("),
                Piece::Text("date) "),
                Piece::Tekton("$(context.pipelineRun.name)"),
                Piece::Text(" $ ( $"),
                Piece::Text("$("),
                Piece::Text("x)"),
            ]
        );
        assert_eq!(pieces("$(event").unwrap_err(), "\"$(event\" has no closing `)`");
    }

    #[test]
    fn references_are_read_as_tekton_writes_them() {
        for text in [
            "event.head.sha",
            "params.list[*]",
            "params.list[0]",
            "params[\"a.b\"]",
            "params.x.key",
            "body.commits[0].id",
            "headers.x-github-event",
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), format!("$({text})"));
        }
        for text in
            ["event", "event.", "event..x", "event.x[", "event.x[a]", "event[0]", "params.x[*].y"]
        {
            assert!(Reference::parse(text).unwrap_err().contains("is no reference"), "{text}");
        }
    }

    #[test]
    fn every_path_of_the_table_is_a_path_of_the_events_view() {
        let event = crate::workflow::testing::comment_event();
        let view = event.view();
        for (path, _) in EVENT_PATHS {
            let pointer = format!("/{}", path.replace('.', "/"));
            assert!(view.pointer(&pointer).is_some(), "{path}");
        }
        let mut leaves = Vec::new();
        collect(&view, "", &mut leaves);
        for leaf in leaves {
            let known = EVENT_PATHS.iter().any(|(path, _)| *path == leaf);
            assert!(known, "{leaf} is not in the table");
        }
    }

    fn collect(value: &Value, path: &str, leaves: &mut Vec<String>) {
        match value {
            Value::Object(fields) if path != "data" => {
                for (name, value) in fields {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    collect(value, &path, leaves);
                }
            }
            _ => leaves.push(path.to_owned()),
        }
    }
}
