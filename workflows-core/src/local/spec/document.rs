//! Reading of a document whose problems are collected: every one is told, at its place.

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::{Volumes, is_label};
use crate::{
    Error, ErrorKind, Result, Tenant, local::variables::Template, workflow::parse_duration,
};

pub(super) struct Reader<'a> {
    problems: Vec<(ErrorKind, String)>,
    pub(super) tenant: &'a Tenant,
    pub(super) volumes: &'a Volumes,
}

/// An object of the document and where it is.
pub(super) struct Object<'a> {
    pub(super) at: String,
    fields: &'a Map<String, Value>,
}

static NO_FIELDS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Object<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(tenant: &'a Tenant, volumes: &'a Volumes) -> Self {
        Self { problems: Vec::new(), tenant, volumes }
    }

    pub(super) fn found_no_problem(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn invalid(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push((ErrorKind::Invalid, format!("{at}: {what}")));
    }

    pub(super) fn unsupported(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push((ErrorKind::Unsupported, format!("{at}: {what}")));
    }

    pub(super) fn into_error(self) -> Error {
        const SHOWN: usize = 20;
        let kind = match self.problems.iter().any(|(kind, _)| *kind == ErrorKind::Unsupported) {
            true => ErrorKind::Unsupported,
            false => ErrorKind::Invalid,
        };
        let mut texts: Vec<String> =
            self.problems.iter().take(SHOWN).map(|(_, text)| text.clone()).collect();
        if self.problems.len() > SHOWN {
            texts.push(format!("and {} more", self.problems.len() - SHOWN));
        }
        Error::new(kind, "read a PipelineRun for local execution", texts.join("; "))
    }

    /// An object that may have these fields; any other is refused by name.
    pub(super) fn object<'v>(
        &mut self,
        value: &'v Value,
        at: impl Into<String>,
        known: &[&str],
    ) -> Object<'v> {
        let at = at.into();
        let Some(fields) = value.as_object() else {
            self.invalid(&at, "expected an object");
            return Object { at, fields: &NO_FIELDS };
        };
        for (name, value) in fields {
            if !known.contains(&name.as_str()) && !is_empty(value) {
                let shown: String = name.chars().take(80).collect();
                self.unsupported(&format!("{at}.{shown}"), "the local sink does not offer this");
            }
        }
        Object { at, fields }
    }

    pub(super) fn text(&mut self, object: &Object<'_>, name: &str) -> Option<String> {
        let value = object.get(name)?;
        match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.invalid(&object.at(name), "expected a string");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, object: &Object<'_>, name: &str) -> bool {
        match object.get(name).map(|value| (value, value.as_bool())) {
            None => false,
            Some((_, Some(value))) => value,
            Some((_, None)) => {
                self.invalid(&object.at(name), "expected true or false");
                false
            }
        }
    }

    pub(super) fn list<'v>(&mut self, object: &Object<'v>, name: &str) -> Vec<(String, &'v Value)> {
        let Some(value) = object.get(name) else { return Vec::new() };
        let at = object.at(name);
        match value.as_array() {
            Some(items) => {
                items.iter().enumerate().map(|(i, item)| (format!("{at}[{i}]"), item)).collect()
            }
            None => {
                self.invalid(&at, "expected a list");
                Vec::new()
            }
        }
    }

    pub(super) fn ok<T>(&mut self, at: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|wrong| self.invalid(at, wrong)).ok()
    }

    pub(super) fn template(&mut self, at: &str, text: &str) -> Option<Template> {
        self.ok(at, Template::parse(text))
    }

    pub(super) fn literal(&mut self, at: &str, text: &str) {
        if self.template(at, text).is_some_and(|template| template.variables().next().is_some()) {
            self.unsupported(at, "variables are not replaced here");
        }
    }

    /// A name that becomes part of a path: a DNS-1123 label.
    pub(super) fn label(&mut self, object: &Object<'_>, name: &str) -> String {
        let at = object.at(name);
        match self.text(object, name) {
            Some(text) if is_label(&text) => text,
            Some(text) => {
                let shown: String = text.chars().take(80).collect();
                self.invalid(
                    &at,
                    format!("{shown:?} is not a DNS label: 1 to 63 characters of a-z, 0-9 and '-'"),
                );
                String::new()
            }
            None => {
                self.invalid(&at, "a name is missing");
                String::new()
            }
        }
    }

    /// A name of a parameter, a result or a workspace: what Tekton allows, which is no path.
    pub(super) fn name(&mut self, object: &Object<'_>) -> String {
        let at = object.at("name");
        let name = self.text(object, "name").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if name.len() > 253 || !starts_well || !name.chars().all(allowed) {
            let shown: String = name.chars().take(80).collect();
            let rule = "1 to 253 characters of letters, digits, '.', '_' and '-', and begins with a letter, a digit or '_'";
            self.invalid(&at, format!("{shown:?} is not a name, which has {rule}"));
        }
        name
    }

    pub(super) fn duration(
        &mut self,
        object: &Object<'_>,
        name: &str,
    ) -> Option<Option<SignedDuration>> {
        let text = self.text(object, name)?;
        let duration =
            self.ok(&object.at(name), parse_duration(&text).map_err(|error| error.to_string()))?;
        Some((duration > SignedDuration::ZERO).then_some(duration))
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
