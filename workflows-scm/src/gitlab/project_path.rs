//! Names of projects and groups.

use std::fmt;

use workflows_core::{Error, Result};

use crate::rest::is_dots;

/// The full path of a project, with all of its groups: `acme/platform/api`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProjectPath(String);

impl ProjectPath {
    /// Reads a path of at least one group and a project.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if !text.contains('/') || !is_path(text) {
            return Err(refused("name a GitLab project", "write group/project", text));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the full path of a group.
pub(super) fn group(text: &str) -> Result<&str> {
    if is_path(text) {
        Ok(text)
    } else {
        Err(refused("name a GitLab group", "write its path", text))
    }
}

fn refused(operation: &'static str, remedy: &str, text: &str) -> Error {
    let shown: String = text.chars().take(150).collect();
    let remedy = format!("{remedy}, with letters, digits, '-', '_' and '.'");
    Error::invalid(operation, remedy).with("name", format!("{shown:?}"))
}

/// The characters and the depth are those that GitLab allows.
fn is_path(text: &str) -> bool {
    const DEEPEST: usize = 22;
    let is_name = |part: &str| {
        let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.len() <= 255 && !is_dots(part) && part.chars().all(allowed)
    };
    text.split('/').count() <= DEEPEST && text.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for right in ["acme/api", "acme/platform/back-end/api.rs", "a_b/c"] {
            assert_eq!(ProjectPath::parse(right).unwrap().as_str(), right);
        }
        let deep = ["a"; 30].join("/");
        for wrong in ["acme", "acme/", "/api", "a//b", "a b/c", "acme/..", "../api", "a/b?c", &deep]
        {
            assert!(ProjectPath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(group("acme").unwrap(), "acme");
        assert!(group("acme/..").is_err() && group("").is_err());
    }
}
