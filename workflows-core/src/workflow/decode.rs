//! From a JSON value to a type, with every problem on the way rather than the first.
//!
//! Derived `Deserialize` implementations stop at the first error. Here each wrong part is noted,
//! taken out, and the value read again without it, until what is left can be read. The derives stay
//! the one description of the document.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

use super::problem::{Problem, did_you_mean, nearest, shown};

/// What came of reading a value.
pub(crate) struct Decoded<T> {
    /// The value without its wrong parts, when there is anything left of it.
    pub(crate) value: Option<T>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// The fields that were taken out.
    pub(crate) wrong: BTreeSet<String>,
}

impl<T> Decoded<T> {
    /// A field of the value as it stands in the document: where an item of a list was taken out, the
    /// items behind it have other indices.
    pub(crate) fn as_written(&self, field: &str) -> String {
        let mut written = String::new();
        let mut rest = field;
        while let Some((before, (index, behind))) =
            rest.split_once('[').and_then(|(before, after)| Some((before, after.split_once(']')?)))
        {
            written.push_str(before);
            let list = written.clone();
            let is_left = |at: &usize| !self.wrong.contains(&format!("{list}[{at}]"));
            let place = index.parse().ok().and_then(|index| (0..).filter(is_left).nth(index));
            written.push_str(&place.map_or_else(|| format!("[{index}]"), |at| format!("[{at}]")));
            rest = behind;
        }
        written + rest
    }
}

/// Reads a value as a `T`; `root` is the path that problems begin with.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value, root: &str) -> Decoded<T> {
    const MOST_PROBLEMS: usize = 50;
    let report = RefCell::new(Report::default());
    let path = Path { parent: None, part: Part::Root(root) };
    let mut decoded = None;
    while report.borrow().problems.len() < MOST_PROBLEMS {
        match T::deserialize(At { value, path: &path, report: &report }) {
            Ok(value) => {
                decoded = Some(value);
                break;
            }
            Err(error) => {
                if !report.borrow_mut().note(error, root) {
                    break;
                }
            }
        }
    }
    let report = report.into_inner();
    Decoded { value: decoded, problems: report.problems, wrong: report.wrong }
}

#[derive(Default)]
struct Report {
    problems: Vec<Problem>,
    wrong: BTreeSet<String>,
}

impl Report {
    /// Takes the part that an error is about out of the next attempt. Says whether there can be one.
    fn note(&mut self, error: DecodeError, root: &str) -> bool {
        let path = error.path.unwrap_or_else(|| root.to_owned());
        match error.kind {
            Kind::MissingField(name) => {
                let field = joined(&path, name);
                let prefix = joined(&path, "");
                let misspelt = self.wrong.iter().any(|wrong| {
                    let other = wrong.strip_prefix(&prefix).unwrap_or_default();
                    !other.is_empty() && nearest(other, [name]).is_some()
                });
                if !self.wrong.contains(&field) && !misspelt {
                    self.problems
                        .push(Problem::at(&path, format!("the field `{name}` is missing")));
                }
                self.take_out(path, root)
            }
            Kind::UnknownField { field, expected } => {
                self.unknown_field(joined(&path, &field), &field, expected);
                true
            }
            Kind::Other { message, remedy } => {
                let mut problem = Problem::at(&path, message);
                problem.remedy = remedy;
                self.problems.push(problem);
                self.take_out(path, root)
            }
        }
    }

    fn take_out(&mut self, path: String, root: &str) -> bool {
        let possible = path != root;
        self.wrong.insert(path) && possible
    }

    fn unknown_field(&mut self, path: String, field: &str, known: &[&str]) {
        if self.wrong.insert(path.clone()) {
            let meant = did_you_mean(field, known.iter().copied());
            let message = format!("unknown field {}{meant}", ticked(field));
            let known = known.join(", ");
            self.problems.push(Problem::at(path, message).help(format!("known fields: {known}")));
        }
    }
}

fn ticked(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c));
    if plain && name.len() <= 80 { format!("`{name}`") } else { shown(name) }
}

fn joined(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// What a value is, for messages.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => {
            let digits = value.to_string();
            match digits.get(..80) {
                Some(first) if digits.len() > 80 => format!("the number {first}..."),
                _ => format!("the number {digits}"),
            }
        }
        Value::String(value) => format!("the string {}", shown(value)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

enum Part<'a> {
    Root(&'a str),
    Field(&'a str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = match self.parent {
            None => true,
            Some(parent) => {
                parent.fmt(f)?;
                matches!(parent.part, Part::Root(""))
            }
        };
        match self.part {
            Part::Root(root) => f.write_str(root),
            Part::Field(name) if top => f.write_str(name),
            Part::Field(name) => write!(f, ".{name}"),
            Part::Index(index) => write!(f, "[{index}]"),
        }
    }
}

struct DecodeError {
    path: Option<String>,
    kind: Kind,
}

enum Kind {
    MissingField(&'static str),
    UnknownField { field: String, expected: &'static [&'static str] },
    Other { message: String, remedy: Option<String> },
}

impl DecodeError {
    fn other(message: String, remedy: Option<String>) -> Self {
        Self { path: None, kind: Kind::Other { message, remedy } }
    }

    fn at(mut self, path: &Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or("a document that cannot be read"))
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::other(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::other(format!("expected {expected}, found {found}"), None)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = did_you_mean(variant, expected.iter().copied());
        let known = format!("known values: {}", expected.join(", "));
        Self::other(format!("unknown value {}{meant}", shown(variant)), Some(known))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { path: None, kind: Kind::UnknownField { field: field.to_owned(), expected } }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: None, kind: Kind::MissingField(field) }
    }
}

/// A value at its path.
struct At<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
    report: &'a RefCell<Report>,
}

impl At<'_> {
    fn expected(&self, what: &str) -> DecodeError {
        let remedy = match self.value {
            Value::Number(number) if what == "a string" => {
                Some(format!("write it in quotes: \"{number}\""))
            }
            Value::Bool(value) if what == "a string" => {
                Some(format!("write it in quotes: \"{value}\""))
            }
            _ => None,
        };
        DecodeError::other(format!("expected {what}, found {}", describe(self.value)), remedy)
            .at(self.path)
    }
}

impl<'a> At<'a> {
    fn items(&self, items: &'a [Value]) -> Items<'a> {
        Items { items, next: 0, path: self.path, report: self.report }
    }

    fn fields(&self, fields: &'a Map<String, Value>, skip_null: bool) -> Fields<'a> {
        let fields: Vec<_> = fields.iter().collect();
        Fields {
            fields: fields.into_iter(),
            value: None,
            skip_null,
            at: self.path,
            report: self.report,
        }
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let read = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(self.items(items)),
            Value::Object(fields) => visitor.visit_map(self.fields(fields, false)),
        };
        read.map_err(|error: DecodeError| error.at(self.path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(text) => {
                visitor.visit_str(text).map_err(|error: DecodeError| error.at(self.path))
            }
            _ => Err(self.expected("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Bool(value) => {
                visitor.visit_bool(*value).map_err(|error: DecodeError| error.at(self.path))
            }
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number = self.value.as_u64().filter(|number| u32::try_from(*number).is_ok());
        match number {
            Some(number) => {
                visitor.visit_u64(number).map_err(|error: DecodeError| error.at(self.path))
            }
            None => Err(self.expected("a whole number from 0 to 4294967295")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Array(items) => visitor
                .visit_seq(self.items(items))
                .map_err(|error: DecodeError| error.at(self.path)),
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Object(fields) => visitor
                .visit_map(self.fields(fields, false))
                .map_err(|error: DecodeError| error.at(self.path)),
            _ => Err(self.expected("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Object(fields) = self.value else {
            let what = format!("a mapping with the fields {}", known.join(", "));
            return Err(self.expected(&what));
        };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let path = joined(&self.path.to_string(), name);
            self.report.borrow_mut().unknown_field(path, name, known);
        }
        visitor
            .visit_map(self.fields(fields, true))
            .map_err(|error: DecodeError| error.at(self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(text) => {
                let variant: StrDeserializer<'_, DecodeError> = text.as_str().into_deserializer();
                visitor.visit_enum(variant).map_err(|error: DecodeError| error.at(self.path))
            }
            _ => Err(self.expected("a string")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Value],
    next: usize,
    path: &'a Path<'a>,
    report: &'a RefCell<Report>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        loop {
            let Some(value) = self.items.get(self.next) else { return Ok(None) };
            let path = Path { parent: Some(self.path), part: Part::Index(self.next) };
            self.next += 1;
            if is_wrong(self.report, &path) {
                continue;
            }
            return seed
                .deserialize(At { value, path: &path, report: self.report })
                .map(Some)
                .map_err(|error| error.at(&path));
        }
    }
}

struct Fields<'a> {
    fields: std::vec::IntoIter<(&'a String, &'a Value)>,
    value: Option<(&'a String, &'a Value)>,
    /// Whether a field without a value counts as left out, as Kubernetes has it.
    skip_null: bool,
    at: &'a Path<'a>,
    report: &'a RefCell<Report>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        for (name, value) in self.fields.by_ref() {
            let path = Path { parent: Some(self.at), part: Part::Field(name) };
            if (self.skip_null && value.is_null()) || is_wrong(self.report, &path) {
                continue;
            }
            self.value = Some((name, value));
            let key: StrDeserializer<'_, DecodeError> = name.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some((name, value)) = self.value.take() else {
            return Err(DecodeError::other("a field without a name".into(), None));
        };
        let path = Path { parent: Some(self.at), part: Part::Field(name) };
        seed.deserialize(At { value, path: &path, report: self.report })
            .map_err(|error| error.at(&path))
    }
}

fn is_wrong(report: &RefCell<Report>, path: &Path<'_>) -> bool {
    let report = report.borrow();
    !report.wrong.is_empty() && report.wrong.contains(&path.to_string())
}
