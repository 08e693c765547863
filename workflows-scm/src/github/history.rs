//! Commits and how they descend from each other.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use octocrab::models::commits::GitCommitObject;
use serde::Deserialize;
use workflows_core::{
    CommitId, Error, ErrorKind, Result,
    repo::{CommitInfo, History},
};

use super::{connection::GitHubRepository, objects::Commit, refs::empty_is_missing};
use crate::rest::Priority;

/// How many commits are looked through for one of the past.
const MOST_COMMITS: usize = 10_000;

#[async_trait]
impl History for GitHubRepository {
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        Ok(self.commit_object(id).await?.info.clone())
    }

    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        if ancestor == descendant {
            return self.commit_object(ancestor).await.map(|_| true);
        }
        let key = (self.number, ancestor.clone(), descendant.clone());
        if let Some(known) = self.objects.ancestry.get(&key).await {
            return Ok(known);
        }
        let is = match self.relate(ancestor, descendant).await {
            Ok(compared) => matches!(compared.status, Relation::Ahead | Relation::Identical),
            // Two commits that share no history are not there either.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                futures::try_join!(self.commit_object(ancestor), self.commit_object(descendant))?;
                false
            }
            Err(error) => return Err(error),
        };
        self.objects.ancestry.insert(key, is).await;
        Ok(is)
    }

    async fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>> {
        self.parted(one, other).await
    }

    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>> {
        const OPERATION: &str = "find the commit of an earlier time";
        let head = self.resolve_now(reference).await?;
        let route = self.route(["commits"]).query("sha", &head).query("per_page", 100);
        // GitHub lists all that the head descends from; the first parents are picked out.
        let mut listed = self.client(Priority::Fetch).pages::<ListedCommit>(OPERATION, route);
        let mut known: HashMap<CommitId, (Option<CommitId>, Timestamp)> = HashMap::new();
        let mut at = head;
        loop {
            if let Some((first_parent, committed_at)) = known.get(&at) {
                if *committed_at <= instant {
                    return Ok(Some(at));
                }
                match first_parent {
                    Some(parent) => at = parent.clone(),
                    None => return Ok(None),
                }
                continue;
            }
            if known.len() >= MOST_COMMITS {
                return Err(Error::invalid(
                    OPERATION,
                    format!("the instant lies more than {MOST_COMMITS} commits back"),
                )
                .with("ref", reference)
                .with("instant", instant));
            }
            let Some(commit) = listed.try_next().await.map_err(empty_is_missing)? else {
                // The parent lies behind the end of a list that moved meanwhile.
                let commit = self.commit_object(&at).await?;
                let parent = commit.info.parents.first().cloned();
                known.insert(at.clone(), (parent, commit.info.committed_at));
                continue;
            };
            known.insert(
                commit.sha,
                (
                    commit.parents.into_iter().next().map(|parent| parent.sha),
                    commit.commit.committer.and_then(|by| by.date).unwrap_or(Timestamp::MIN),
                ),
            );
        }
    }
}

impl GitHubRepository {
    /// A commit, asked for once.
    pub(super) async fn commit_object(&self, id: &CommitId) -> Result<Arc<Commit>> {
        let key = (self.number, id.clone());
        let read = async {
            let route = self.route(["git", "commits", id.as_str()]);
            let client = self.client(Priority::Fetch);
            let found: GitCommitObject = self
                .settled(id.as_str(), async || {
                    let read = client.get("read commit", &route).await;
                    read.map_err(|error| empty_is_missing(error).with("commit", id))
                })
                .await?;
            let committed_at =
                found.committer.date.and_then(|date| Timestamp::new(date.timestamp(), 0).ok());
            let parents = found.parents.iter().filter_map(|parent| parent.sha.as_deref());
            let info = CommitInfo {
                id: found.sha.parse()?,
                title: found.message.lines().next().unwrap_or_default().into(),
                author: found.author.name.into(),
                committed_at: committed_at.unwrap_or(Timestamp::MIN),
                parents: parents.map(str::parse).collect::<Result<_>>()?,
            };
            Ok(Arc::new(Commit { info, tree: found.tree.sha.into() }))
        };
        self.git.commits.try_get_with(key, read).await.map_err(crate::repeated::repeated)
    }
}

/// How a head lies to its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Relation {
    /// The head descends from the base.
    Ahead,
    /// The base descends from the head.
    Behind,
    /// Each has commits that the other has not.
    Diverged,
    /// They are one.
    Identical,
}

/// What is read of a commit in a list.
#[derive(Debug, Deserialize)]
struct ListedCommit {
    sha: CommitId,
    parents: Vec<Parent>,
    commit: CommitText,
}

#[derive(Debug, Deserialize)]
struct Parent {
    sha: CommitId,
}

#[derive(Debug, Deserialize)]
struct CommitText {
    #[serde(default)]
    committer: Option<Signature>,
}

#[derive(Debug, Deserialize)]
struct Signature {
    #[serde(default)]
    date: Option<Timestamp>,
}
