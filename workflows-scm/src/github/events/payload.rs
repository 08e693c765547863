//! A payload whose members are read when they are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use workflows_core::{Error, Result};

use super::OPERATION;

/// The members of a payload, each still text: most are never looked into.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    members: BTreeMap<&'a str, &'a RawValue>,
}

/// Only what is asked for is kept, whatever else a payload holds.
const KEPT: &[&str] = &[
    "action",
    "after",
    "before",
    "branch",
    "changes",
    "check_run",
    "check_suite",
    "client_payload",
    "comment",
    "forced",
    "head_commit",
    "installation",
    "issue",
    "label",
    "merge_group",
    "pull_request",
    "ref",
    "release",
    "repositories",
    "repositories_added",
    "repositories_removed",
    "repository",
    "requested_action",
    "review",
    "sender",
];

impl<'a> Payload<'a> {
    /// Reads the outermost object.
    pub(super) fn parse(event: &str, body: &'a [u8]) -> Result<Self> {
        let read: Members<'a> = serde_json::from_slice(body).map_err(|error| {
            let hint = if body.starts_with(b"payload=") {
                "; set the hook's content type to `application/json`"
            } else {
                ""
            };
            Error::invalid(OPERATION, format!("the body is no JSON object: {error}{hint}"))
                .with("event", event)
        })?;
        Ok(Self { members: read.0 })
    }

    /// A member; `None` when it is not there or `null`.
    pub(super) fn optional<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>> {
        let Some(raw) = self.members.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|error| {
            Error::invalid(OPERATION, format!("`{name}` is not what it should be: {error}"))
        })
    }

    /// A member that has to be there.
    pub(super) fn required<T: DeserializeOwned>(&self, name: &'static str) -> Result<T> {
        self.optional(name)?
            .ok_or_else(|| Error::invalid(OPERATION, format!("`{name}` is missing")))
    }

    /// A member; `None` also when it is something else than what it should be.
    pub(super) fn lenient<T: DeserializeOwned>(&self, name: &'static str) -> Option<T> {
        self.optional(name).ok().flatten()
    }
}

struct Members<'a>(BTreeMap<&'a str, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Visitor)
    }
}

struct Visitor;

impl<'de> serde::de::Visitor<'de> for Visitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            match name {
                Some(name) => {
                    let raw: &RawValue = map.next_value()?;
                    // Of a member that is there twice, the last counts, as for expressions.
                    members.insert(name, raw);
                }
                None => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(Members(members))
    }
}

/// A member's name, when it is one that is kept.
struct Name(Option<&'static str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Known;
        impl serde::de::Visitor<'_> for Known {
            type Value = Name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(KEPT.iter().find(|kept| **kept == name).copied()))
            }
        }
        deserializer.deserialize_str(Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_when_they_are_asked_for() {
        let body = br#"{"action": 7, "ref": "x", "other": [1], "after": null}"#;
        let payload = Payload::parse("push", body).unwrap();
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
            assert!(Payload::parse("push", wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        let error = Payload::parse("push", b"payload=%7B%7D").unwrap_err().to_string();
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
        let payload = Payload::parse("push", deep.as_bytes());
        if let Ok(payload) = payload {
            assert!(payload.optional::<Vec<String>>("ref").is_err());
        }
    }
}
