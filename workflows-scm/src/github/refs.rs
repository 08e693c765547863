//! Refs, and the commits where they stand.

use std::sync::Arc;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use workflows_core::{CommitId, Error, ErrorKind, Result, repo::RefPosition};

use super::{
    api::{Priority, Route},
    connection::GitHubRepository,
};

const RESOLVE: &str = "resolve ref";
const LIST: &str = "list refs";
/// Tags that mark tags that mark tags: git allows any number.
const MOST_TAGS_OF_TAGS: usize = 8;
/// How many tags are peeled together.
const PEELED_TOGETHER: usize = 8;

/// <https://docs.github.com/en/rest/git/refs#get-a-reference>
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ref {
    #[serde(rename = "ref")]
    name: String,
    object: Object,
}

/// <https://docs.github.com/en/rest/git/tags#get-a-tag>
#[derive(Debug, Deserialize)]
struct Tag {
    object: Object,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Object {
    /// `commit`, `tag`, or what can be no position here.
    #[serde(rename = "type")]
    kind: String,
    sha: String,
}

impl GitHubRepository {
    pub(super) async fn resolve_now(&self, reference: &str) -> Result<CommitId> {
        if let Ok(commit) = reference.parse::<CommitId>() {
            return Ok(self.commit_object(&commit).await?.info.id.clone());
        }
        let Some(name) = reference.strip_prefix("refs/") else {
            return Err(Error::invalid(
                RESOLVE,
                "a ref has its full name, such as refs/heads/main, or is a commit id",
            )
            .with("ref", crate::printable::printable(reference)));
        };
        let route = self.route(["git", "ref"]).below(name)?;
        let found: Ref = self
            .client(Priority::Fetch)
            .look(RESOLVE, &route)
            .await
            .map_err(|error| empty_is_missing(error).with("ref", reference))?;
        if found.name != reference {
            return Err(Error::not_found(RESOLVE, "there is no ref of exactly that name")
                .with("ref", reference));
        }
        match self.peel(&found.object).await? {
            Some(commit) => Ok(commit),
            None => {
                Err(Error::invalid(RESOLVE, "the ref stands at no commit").with("ref", reference))
            }
        }
    }

    /// Each prefix is asked for alone: GitHub lists what begins with it.
    pub(super) fn refs_now(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        let listings: Vec<Result<_>> = asked_for(prefixes)
            .iter()
            .map(|name| Ok(self.matching(self.route(["git", "matching-refs"]).below(name)?)))
            .collect();
        let wanted = prefixes.to_vec();
        stream::iter(listings)
            .try_flatten()
            .try_filter(move |found| {
                let fits = wanted.iter().any(|prefix| found.name.starts_with(&**prefix));
                std::future::ready(fits)
            })
            .map(move |found| async move {
                let found = found?;
                let commit = self.peel(&found.object).await?;
                Ok(commit.map(|commit| RefPosition { name: found.name.into(), commit }))
            })
            .buffered(PEELED_TOGETHER)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .boxed()
    }

    fn matching(&self, route: Route) -> BoxStream<'static, Result<Ref>> {
        let pages = self.client(Priority::Background).look_at_pages::<Ref>(LIST, route);
        // A repository without commits has no refs, which GitHub calls a conflict.
        pages
            .map(|found| match found {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                found => found.map(Some),
            })
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .boxed()
    }

    /// The commit that an object is, or marks.
    async fn peel(&self, object: &Object) -> Result<Option<CommitId>> {
        let mut at = object.clone();
        for _ in 0..MOST_TAGS_OF_TAGS {
            match at.kind.as_str() {
                "commit" => return at.sha.parse().map(Some),
                "tag" => {}
                _ => return Ok(None),
            }
            let key = (self.number, Arc::from(at.sha.as_str()));
            if let Some(commit) = self.objects.tags.get(&key).await {
                return commit.parse().map(Some);
            }
            let route = self.route(["git", "tags", &at.sha]);
            let tag: Tag = self.client(Priority::Fetch).get("read tag", &route).await?;
            at = tag.object;
            if at.kind == "commit" {
                self.objects.tags.insert(key, at.sha.as_str().into()).await;
            }
        }
        Ok(None)
    }
}

/// What GitHub is asked for, without `refs/` and without a slash at the end, which it does not
/// understand alike everywhere; the shortest that cover all. What is found besides is left out.
fn asked_for(prefixes: &[Arc<str>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for prefix in prefixes {
        match prefix.strip_prefix("refs/").map(|name| name.trim_end_matches('/')) {
            Some(name) if !name.is_empty() => names.push(name.to_owned()),
            // All refs of people; those of pull requests have to be asked for.
            _ if "refs/".starts_with(&**prefix) => {
                names.extend(["heads".to_owned(), "tags".to_owned()]);
            }
            _ => {}
        }
    }
    names.sort();
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.last().is_some_and(|last| name.starts_with(last.as_str())) {
            kept.push(name);
        }
    }
    kept
}

/// GitHub answers for a repository without a commit that it conflicts.
pub(super) fn empty_is_missing(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Conflict => {
            Error::not_found(error.operation().to_owned(), "the repository has no commit yet")
                .caused_by(error)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_covers_the_prefixes_is_asked_for() {
        let of = |prefixes: &[&str]| {
            asked_for(&prefixes.iter().map(|prefix| Arc::from(*prefix)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["refs/heads/release/", "refs/heads/release/1"]), ["heads/release"]);
        assert_eq!(of(&["refs/tags/v", "refs/heads/main"]), ["heads/main", "tags/v"]);
        assert_eq!(of(&["refs/"]), ["heads", "tags"]);
        assert_eq!(of(&["refs/heads/main", "refs/"]), ["heads", "tags"]);
        assert_eq!(of(&["main"]), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }
}
