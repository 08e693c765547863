//! A payload whose members are read when they are asked for.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use workflows_core::{CommitId, Error, Result};

/// The members of a payload, each still text: most are never looked into.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    operation: &'static str,
    members: BTreeMap<&'static str, &'a RawValue>,
}

impl<'a> Payload<'a> {
    /// Reads the outermost object. Only the members that are named are kept, whatever else it holds.
    pub(crate) fn parse(
        operation: &'static str,
        event: &str,
        body: &'a [u8],
        kept: &'static [&'static str],
    ) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let read = Kept(kept).deserialize(&mut reader).and_then(|members| {
            reader.end()?;
            Ok(members)
        });
        let members = read.map_err(|error| {
            let hint = if body.starts_with(b"payload=") {
                "; set the hook's content type to `application/json`"
            } else {
                ""
            };
            Error::invalid(operation, format!("the body is no JSON object: {error}{hint}"))
                .with("event", event)
        })?;
        Ok(Self { operation, members })
    }

    /// A member; `None` when it is not there or `null`.
    pub(crate) fn optional<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>> {
        let Some(raw) = self.members.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|error| {
            Error::invalid(self.operation, format!("`{name}` is not what it should be: {error}"))
        })
    }

    /// A member that has to be there.
    pub(crate) fn required<T: DeserializeOwned>(&self, name: &'static str) -> Result<T> {
        self.optional(name)?
            .ok_or_else(|| Error::invalid(self.operation, format!("`{name}` is missing")))
    }

    /// A member; `None` also when it is something else than what it should be.
    pub(crate) fn lenient<T: DeserializeOwned>(&self, name: &'static str) -> Option<T> {
        self.optional(name).ok().flatten()
    }

    /// A member that is a commit; `None` for the zeros that stand for no commit.
    pub(crate) fn position(&self, name: &'static str) -> Result<Option<CommitId>> {
        position(self.operation, name, &self.required::<String>(name)?)
    }
}

/// A commit; `None` for the zeros that stand for no commit.
pub(crate) fn position(
    operation: &'static str,
    member: &str,
    sha: &str,
) -> Result<Option<CommitId>> {
    let commit: CommitId = sha
        .parse()
        .map_err(|error: Error| Error::invalid(operation, format!("`{member}`: {error}")))?;
    Ok(Some(commit).filter(|commit| !commit.is_null()))
}

/// Reads an object, and keeps the members of these names.
#[derive(Clone, Copy)]
struct Kept(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Kept {
    type Value = BTreeMap<&'static str, &'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Kept {
    type Value = BTreeMap<&'static str, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key_seed(Name(self.0))? {
            match name {
                Some(name) => {
                    let raw: &RawValue = map.next_value()?;
                    // Of a member that is there twice, the last counts, as for expressions.
                    members.insert(name, raw);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// A member's name, when it is one that is kept.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|kept| **kept == name).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Payload<'_>> {
        Payload::parse("read it", "push", body, &["action", "after", "before", "ref"])
    }

    #[test]
    fn members_are_read_when_they_are_asked_for() {
        let body = br#"{"action": 7, "ref": "x", "other": [1], "after": null}"#;
        let payload = parse(body).unwrap();
        assert_eq!(payload.required::<String>("ref").unwrap(), "x");
        assert_eq!(payload.optional::<String>("after").unwrap(), None);
        assert_eq!(payload.lenient::<String>("action"), None);
        let error = payload.required::<String>("action").unwrap_err().to_string();
        assert!(error.contains("`action` is not what it should be"), "{error}");
        let error = payload.required::<String>("before").unwrap_err().to_string();
        assert!(error.contains("`before` is missing"), "{error}");
        assert!(!payload.members.contains_key("other"));
    }

    #[test]
    fn what_is_no_object_is_refused_with_a_hint() {
        for wrong in ["", "[]", "7", "{", "{\"a\":}", "nul"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        let error = parse(b"payload=%7B%7D").unwrap_err().to_string();
        assert!(error.contains("application/json"), "{error}");
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!(
            "{{\"other\": {0}{1}, \"ref\": {0}{1}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        // Names that are not kept are skipped; the rest is text until it is asked for.
        let payload = parse(deep.as_bytes());
        if let Ok(payload) = payload {
            assert!(payload.optional::<Vec<String>>("ref").is_err());
        }
    }
}
