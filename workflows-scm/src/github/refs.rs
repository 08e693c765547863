//! Refs, and the commits where they stand.

use std::sync::Arc;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use workflows_core::{CommitId, Error, ErrorKind, Result, repo::RefPosition};

use super::connection::GitHubRepository;
use crate::rest::{Priority, Route, ref_names::asked_for};

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
        let pages = self.client(Priority::Poll).look_at_pages::<Ref>(LIST, route);
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
            if let Some(commit) = self.git.tags.get(&key).await {
                return commit.parse().map(Some);
            }
            let route = self.route(["git", "tags", &at.sha]);
            let tag: Tag = self.client(Priority::Fetch).get("read tag", &route).await?;
            at = tag.object;
            if at.kind == "commit" {
                self.git.tags.insert(key, at.sha.as_str().into()).await;
            }
        }
        Ok(None)
    }
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
