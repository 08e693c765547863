//! Substitution of `$(...)` references in the parsed document.
//!
//! A value is taken apart once, when the document is loaded, and put together once for each run.
//! What is put in is never looked at again, and never changes the shape of the document.
//!
//! # Text that Tekton would read as a variable
//!
//! Tekton replaces `$(...)` in a run in several rounds (parameters, then context, workspaces and
//! results, then again in each task, and Kubernetes after it in a container's arguments), each over
//! what the one before put in; and it has no way to write a `$(` that stands for itself. A text from
//! an event that holds `$(`, such as a branch named `$(params.token)`, would therefore become a
//! variable somewhere on its way. So a run whose values would hold a `$(` that does not stand in the
//! document itself is not made, and the error names the parameter and the reference.

use std::{borrow::Cow, cell::Cell, collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    problem::{Problem, did_you_mean, shown},
    reference::{
        Content, Piece, REPO_FIELDS, RUN_FIELDS, Reference, Root, Step, WORKFLOW_FIELDS,
        event_content, pieces,
    },
    validate::ParamShape,
};
use crate::{Error, Result};

/// What references stand for, for one run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Values<'a> {
    /// The event, as [`Event::view`](crate::Event::view) shows it.
    pub event: &'a Value,
    /// The raw payload, where it is JSON and was kept.
    pub body: Option<&'a Value>,
    /// The headers that were kept with it, by their names in lower case.
    pub headers: Option<&'a BTreeMap<String, String>>,
    /// The repositories of the document, by their names in it.
    pub repos: BTreeMap<Arc<str>, RepoValues>,
    /// The run's key.
    pub run_key: &'a str,
    /// The run's name.
    pub run_name: &'a str,
    /// The id of the request for this attempt; empty for the first.
    pub attempt: &'a str,
}

/// What `$(repos.<name>...)` stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoValues {
    /// Where it can be cloned from.
    pub url: String,
    /// Its full name.
    pub name: String,
    /// The commit: of the event for the repository that the event is about, else of the ref that the
    /// document names.
    pub revision: Option<String>,
    /// The connection through which it is reached.
    pub connection: String,
}

impl<'a> Values<'a> {
    /// The values of an event and a run, without a payload and without repositories.
    pub fn new(event: &'a Value, run_key: &'a str, run_name: &'a str) -> Self {
        Self {
            event,
            body: None,
            headers: None,
            repos: BTreeMap::new(),
            run_key,
            run_name,
            attempt: "",
        }
    }

    /// Adds the raw payload.
    #[must_use]
    pub fn with_payload(
        mut self,
        body: Option<&'a Value>,
        headers: Option<&'a BTreeMap<String, String>>,
    ) -> Self {
        self.body = body;
        self.headers = headers;
        self
    }

    /// Adds a repository.
    #[must_use]
    pub fn with_repo(mut self, name: impl Into<Arc<str>>, values: RepoValues) -> Self {
        self.repos.insert(name.into(), values);
        self
    }

    /// Sets the id of the request for this attempt.
    #[must_use]
    pub fn with_attempt(mut self, attempt: &'a str) -> Self {
        self.attempt = attempt;
        self
    }
}

/// The names that references may use.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) repos: Vec<&'a str>,
    pub(super) params: BTreeMap<&'a str, ParamShape>,
}

/// A value with references, taken apart.
#[derive(Debug, Clone)]
pub(super) enum Template {
    /// A string.
    Text(Box<[Part]>),
    /// `$(...[*])` alone: all items of a list, or a whole object.
    All(Reference),
    List(Box<[Template]>),
    Object(Box<[(Box<str>, Template)]>),
    /// A number, a boolean or nothing.
    Plain(Value),
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    /// What stands in the document, Tekton's own variables among it.
    Text(Box<str>),
    Value(Reference),
}

impl Template {
    /// Takes a value apart, and tells every reference in it that is wrong.
    pub(super) fn compile(
        field: &str,
        value: &Value,
        scope: &Scope<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        match value {
            Value::String(text) => Self::compile_text(field, text, scope, problems),
            Value::Array(items) => Self::List(
                (0..)
                    .zip(items)
                    .map(|(index, item): (usize, _)| {
                        Self::compile(&format!("{field}[{index}]"), item, scope, problems)
                    })
                    .collect(),
            ),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, value)| {
                        let field = format!("{field}.{name}");
                        (name.as_str().into(), Self::compile(&field, value, scope, problems))
                    })
                    .collect(),
            ),
            plain => Self::Plain(plain.clone()),
        }
    }

    pub(super) fn compile_text(
        field: &str,
        text: &str,
        scope: &Scope<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let pieces = pieces(text).unwrap_or_else(|message| {
            problems.push(
                Problem::at(field, message).help("write `$$(` for a `$(` that stands for itself"),
            );
            Vec::new()
        });
        let alone = pieces.len() == 1;
        let mut parts: Vec<Part> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let literal = match piece {
                Piece::Text(text) | Piece::Tekton(text) => text,
                Piece::Ours(name) => {
                    let read = Reference::parse(name)
                        .and_then(|reference| check(&reference, scope, alone).map(|()| reference));
                    match read {
                        Ok(reference) if reference.star => return Self::All(reference),
                        Ok(reference) => parts.push(Part::Value(reference)),
                        Err(message) => problems.push(Problem::at(field, message)),
                    }
                    continue;
                }
            };
            match parts.last_mut() {
                Some(Part::Text(before)) => *before = format!("{before}{literal}").into(),
                _ => parts.push(Part::Text(literal.into())),
            }
        }
        Self::Text(parts.into())
    }

    /// All references in it.
    pub(super) fn references(&self) -> Vec<&Reference> {
        match self {
            Self::Text(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Value(reference) => Some(reference),
                    Part::Text(_) => None,
                })
                .collect(),
            Self::All(reference) => vec![reference],
            Self::List(items) => items.iter().flat_map(Self::references).collect(),
            Self::Object(fields) => {
                fields.iter().flat_map(|(_, value)| value.references()).collect()
            }
            Self::Plain(_) => Vec::new(),
        }
    }

    /// Puts the value together.
    pub(super) fn render(&self, source: &Source<'_>) -> Result<Value, Refusal> {
        match self {
            Self::Text(parts) => render_text(parts, source, true).map(Value::String),
            Self::All(reference) => source.all(reference),
            Self::List(items) => {
                let mut rendered = Vec::with_capacity(items.len());
                for item in items {
                    match (item, item.render(source)?) {
                        (Self::All(reference), Value::Object(_)) => {
                            return Err(Refusal::Wrong(format!(
                                "{reference} is an object and cannot be an item of a list"
                            )));
                        }
                        (Self::All(_), Value::Array(items)) => rendered.extend(items),
                        (_, value) => rendered.push(value),
                    }
                }
                Ok(Value::Array(rendered))
            }
            Self::Object(fields) => {
                let mut rendered = Map::new();
                for (name, value) in fields {
                    if let Self::All(reference) = value {
                        return Err(Refusal::Wrong(format!(
                            "{reference} cannot be the value of the key {}",
                            shown(name)
                        )));
                    }
                    rendered.insert(name.to_string(), value.render(source)?);
                }
                Ok(Value::Object(rendered))
            }
            Self::Plain(value) => Ok(value.clone()),
        }
    }

    /// Puts a text together that Tekton does not see.
    pub(super) fn render_key(&self, source: &Source<'_>) -> Result<String, Refusal> {
        match self {
            Self::Text(parts) => render_text(parts, source, false),
            _ => Err(Refusal::Wrong("a list cannot be part of a key".into())),
        }
    }
}

/// Whether a reference can have a value.
fn check(reference: &Reference, scope: &Scope<'_>, alone: bool) -> Result<(), String> {
    let fields = |known: &[&str]| {
        let second = reference.steps.get(1);
        let last = reference.steps.last();
        let name = |step: Option<&Step>| match step {
            Some(Step::Field(name)) => name.to_string(),
            _ => String::new(),
        };
        let (wanted, expected) =
            if reference.root == Root::Repos { (name(second), 2) } else { (name(last), 1) };
        if reference.steps.len() != expected || !known.contains(&wanted.as_str()) || reference.star
        {
            let meant = did_you_mean(&wanted, known.iter().copied());
            return Err(format!(
                "`{reference}` refers to nothing that is known{meant}; known: {}",
                known.join(", ")
            ));
        }
        Ok(())
    };
    if reference.star && !alone {
        return Err(format!("`{reference}` is a list and cannot be part of a longer text"));
    }
    match reference.root {
        Root::Workflow => fields(&WORKFLOW_FIELDS),
        Root::Run => fields(&RUN_FIELDS),
        Root::Repos => {
            let name = reference.first();
            if !scope.repos.contains(&name) {
                let meant = did_you_mean(name, scope.repos.iter().copied());
                let known = scope.repos.join(", ");
                return Err(format!(
                    "`{reference}`: no repository is named {}{meant}; known: {known}",
                    shown(name)
                ));
            }
            fields(&REPO_FIELDS)
        }
        Root::Event => match event_content(reference)? {
            Content::List if !reference.star => {
                Err(format!("`{reference}` is a list; write `[*]` for its items, or an index"))
            }
            Content::Scalar if reference.star => {
                Err(format!("`{reference}`: `[*]` has a meaning only for a list"))
            }
            _ => Ok(()),
        },
        Root::Params => {
            let name = reference.first();
            let Some(shape) = scope.params.get(name) else {
                let meant = did_you_mean(name, scope.params.keys().copied());
                return Err(format!("`{reference}`: no parameter is named {}{meant}", shown(name)));
            };
            let whole = reference.steps.len() == 1;
            match shape {
                ParamShape::String if !whole || reference.star => {
                    Err(format!("`{reference}`: the parameter {} is a string", shown(name)))
                }
                ParamShape::Array | ParamShape::Object if whole && !reference.star => Err(format!(
                    "`{reference}`: the parameter {} is {}; write `[*]` for all of it",
                    shown(name),
                    if *shape == ParamShape::Array { "an array" } else { "an object" }
                )),
                _ => Ok(()),
            }
        }
        Root::Body | Root::Headers => Ok(()),
    }
}

/// Why a value could not be put together.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The event has no value for a reference.
    NoValue(String),
    /// Anything else.
    Wrong(String),
}

impl Refusal {
    pub(super) fn into_error(self, field: &str) -> Error {
        let message = match self {
            Self::NoValue(reference) => format!("the event has no value for {reference}"),
            Self::Wrong(message) => message,
        };
        Error::invalid("render the run", message).with("field", field)
    }
}

/// Values, and the parameters that were rendered so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) values: &'a Values<'a>,
    pub(super) workflow: &'a str,
    pub(super) trigger: &'a str,
    pub(super) params: BTreeMap<Arc<str>, Value>,
    /// How many bytes were put in for references so far.
    filled: Cell<usize>,
}

/// The most bytes that are put in for the references of a run. A parameter that holds another twice,
/// and that one a third twice, would have no end. An object in a cluster has at most 1.5 MiB:
/// <https://etcd.io/docs/v3.6/dev-guide/limit/#request-size-limit>.
const LARGEST: usize = 1 << 20;

impl<'a> Source<'a> {
    pub(super) fn new(values: &'a Values<'a>, workflow: &'a str, trigger: &'a str) -> Self {
        Self { values, workflow, trigger, params: BTreeMap::new(), filled: Cell::new(0) }
    }

    fn fill(&self, reference: &Reference, bytes: usize) -> Result<(), Refusal> {
        let filled = self.filled.get().saturating_add(bytes);
        self.filled.set(filled);
        if filled > LARGEST {
            return Err(Refusal::Wrong(format!(
                "with {reference}, more than {LARGEST} bytes would be put in for references"
            )));
        }
        Ok(())
    }

    fn find(&self, reference: &Reference) -> Result<Cow<'_, Value>, Refusal> {
        let values = self.values;
        let text = |text: &str| Some(Cow::Owned(Value::from(text)));
        let last = reference.path();
        let last = last.rsplit('.').next().unwrap_or_default();
        let found = match reference.root {
            Root::Event => reference.follow(values.event, 0).map(Cow::Borrowed),
            Root::Body => values.body.and_then(|body| reference.follow(body, 0)).map(Cow::Borrowed),
            Root::Headers => values
                .headers
                .and_then(|headers| headers.get(&reference.first().to_ascii_lowercase()))
                .and_then(|value| text(value)),
            Root::Repos => values.repos.get(reference.first()).and_then(|repo| match last {
                "url" => text(&repo.url),
                "name" => text(&repo.name),
                "connection" => text(&repo.connection),
                _ => repo.revision.as_deref().and_then(text),
            }),
            Root::Workflow if last == "trigger" => text(self.trigger),
            Root::Workflow => text(self.workflow),
            Root::Run => match last {
                "key" => text(values.run_key),
                "name" => text(values.run_name),
                _ => text(values.attempt),
            },
            Root::Params => self
                .params
                .get(reference.first())
                .and_then(|value| reference.follow(value, 1))
                .map(Cow::Borrowed),
        };
        found.ok_or_else(|| Refusal::NoValue(reference.to_string()))
    }

    /// A scalar as text.
    fn text(&self, reference: &Reference) -> Result<String, Refusal> {
        match &*self.find(reference)? {
            Value::String(text) => {
                self.fill(reference, text.len())?;
                Ok(text.clone())
            }
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            other => Err(Refusal::Wrong(format!(
                "{reference} is {}, and only a string, a number or a boolean can be put here",
                super::decode::describe(other)
            ))),
        }
    }

    /// A list or an object of scalars, as text.
    fn all(&self, reference: &Reference) -> Result<Value, Refusal> {
        let found = self.find(reference)?;
        let text = |value: &Value| {
            let text = match value {
                Value::String(text) => {
                    self.fill(reference, text.len() + 1)?;
                    text.clone()
                }
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                other => {
                    return Err(Refusal::Wrong(format!(
                        "{reference} holds {}, and a parameter holds only strings",
                        super::decode::describe(other)
                    )));
                }
            };
            if reference.root != Root::Params && text.contains("$(") {
                return Err(variable(&reference.to_string()));
            }
            Ok(Value::String(text))
        };
        match &*found {
            Value::Array(items) => {
                items.iter().map(text).collect::<Result<_, _>>().map(Value::Array)
            }
            Value::Object(fields) => {
                let mut all = Map::new();
                for (name, value) in fields {
                    if reference.root != Root::Params && name.contains("$(") {
                        return Err(variable(&reference.to_string()));
                    }
                    all.insert(name.clone(), text(value)?);
                }
                Ok(Value::Object(all))
            }
            other => Err(Refusal::Wrong(format!(
                "{reference} is {}, and `[*]` means a list or an object",
                super::decode::describe(other)
            ))),
        }
    }
}

pub(super) fn variable(reference: &str) -> Refusal {
    Refusal::Wrong(format!(
        "the value of {reference} puts a `$(` into the run, which Tekton would read as a variable"
    ))
}

/// Puts a text together. With `for_tekton`, a `$(` may come only from the document.
fn render_text(parts: &[Part], source: &Source<'_>, for_tekton: bool) -> Result<String, Refusal> {
    let mut text = String::new();
    // The start of each `$(` that stands in one piece in the document, or in a parameter's value,
    // which was looked at when it was made.
    let mut written = Vec::new();
    for part in parts {
        let piece = match part {
            Part::Text(piece) => Cow::Borrowed(&**piece),
            Part::Value(reference) => Cow::Owned(source.text(reference)?),
        };
        let ours = match part {
            Part::Text(_) => true,
            Part::Value(reference) => reference.root == Root::Params,
        };
        if ours {
            written.extend(piece.match_indices("$(").map(|(at, _)| text.len() + at));
        }
        text.push_str(&piece);
    }
    let foreign = text.match_indices("$(").any(|(at, _)| written.binary_search(&at).is_err());
    if for_tekton && foreign {
        let references: Vec<String> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Value(reference) => Some(reference.to_string()),
                Part::Text(_) => None,
            })
            .collect();
        return Err(variable(&references.join(", ")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
