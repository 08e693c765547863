//! Ids of comments: GitHub counts each kind of comment for itself.

use std::{fmt, str::FromStr};

use workflows_core::{Error, Result};

/// The id of a comment, with its kind, so that no two comments of a repository have one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CommentId {
    /// A comment in the conversation of a pull request: `123`.
    Conversation(u64),
    /// A comment on a line of a pull request: `line-123`.
    Line(u64),
    /// What somebody wrote with a whole review: `review-123`. It takes no reactions.
    Review(u64),
    /// A comment on a commit: `commit-123`.
    Commit(u64),
}

impl fmt::Display for CommentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation(id) => write!(f, "{id}"),
            Self::Line(id) => write!(f, "line-{id}"),
            Self::Review(id) => write!(f, "review-{id}"),
            Self::Commit(id) => write!(f, "commit-{id}"),
        }
    }
}

impl FromStr for CommentId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (of, digits) = match text.split_once('-') {
            Some(("line", digits)) => (Self::Line as fn(u64) -> Self, digits),
            Some(("review", digits)) => (Self::Review as fn(u64) -> Self, digits),
            Some(("commit", digits)) => (Self::Commit as fn(u64) -> Self, digits),
            _ => (Self::Conversation as fn(u64) -> Self, text),
        };
        digits.parse().map(of).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid("read the id of a comment", "it is none of GitHub's")
                .with("id", format!("{shown:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_kinds_differ_and_come_back() {
        for id in [
            CommentId::Conversation(7),
            CommentId::Line(7),
            CommentId::Review(7),
            CommentId::Commit(7),
        ] {
            assert_eq!(id.to_string().parse::<CommentId>().unwrap(), id);
        }
        for wrong in ["", "x", "line-", "line--1", "other-7", "-7", "7-7"] {
            assert!(wrong.parse::<CommentId>().is_err(), "{wrong:?}");
        }
    }
}
