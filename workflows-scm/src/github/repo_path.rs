//! Names of GitHub's repositories, and routes below them.

use std::fmt;

use workflows_core::{Error, Result};

use crate::rest::{Route, is_dots};

/// An owner and a repository's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RepoPath {
    pub(crate) owner: String,
    pub(crate) name: String,
}

impl RepoPath {
    /// Reads `owner/name`. The characters are those that GitHub allows.
    pub(crate) fn parse(full_name: &str) -> Result<Self> {
        let refused = || {
            let shown: String = full_name.chars().take(150).collect();
            Error::invalid(
                "name a GitHub repository",
                "write owner/name, with letters, digits, '-', '_' and '.'",
            )
            .with("name", format!("{shown:?}"))
        };
        let is_name = |text: &str, most: usize| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !text.is_empty() && text.len() <= most && text.bytes().all(allowed)
        };
        let (owner, name) = full_name.split_once('/').ok_or_else(refused)?;
        if !is_name(owner, 100) || !is_name(name, 100) || [owner, name].iter().any(|n| is_dots(n)) {
            return Err(refused());
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A route below `/repos/{owner}/{name}`.
pub(crate) fn of_repo<'a>(
    repo: &'a RepoPath,
    segments: impl IntoIterator<Item = &'a str>,
) -> Route {
    let first = ["repos", &repo.owner, &repo.name];
    Route::new(first.into_iter().chain(segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for wrong in ["acme", "acme/", "/api", "a/b/c", "a b/c", "acme/..", "../api", "ä/b"] {
            assert!(RepoPath::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
