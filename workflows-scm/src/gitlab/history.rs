//! Commits and how they descend from each other.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use workflows_core::{
    CommitId, ErrorKind, Result,
    repo::{CommitInfo, History},
};

use super::connection::GitLabProject;
use crate::rest::Priority;

/// <https://docs.gitlab.com/api/commits/#retrieve-a-commit>
#[derive(Debug, Deserialize)]
struct CommitBody {
    id: CommitId,
    #[serde(default)]
    title: String,
    #[serde(default)]
    author_name: String,
    /// With an offset.
    committed_date: Timestamp,
    #[serde(default)]
    parent_ids: Vec<CommitId>,
}

impl From<CommitBody> for CommitInfo {
    fn from(body: CommitBody) -> Self {
        Self {
            id: body.id,
            title: body.title.into(),
            author: body.author_name.into(),
            committed_at: body.committed_date,
            parents: body.parent_ids,
        }
    }
}

#[async_trait]
impl History for GitLabProject {
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        Ok(CommitInfo::clone(&*self.commit_info(id).await?))
    }

    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        if ancestor == descendant {
            return self.commit_info(ancestor).await.map(|_| true);
        }
        let key = (self.number, ancestor.clone(), descendant.clone());
        if let Some(known) = self.objects().ancestry.get(&key).await {
            return Ok(known);
        }
        let is = self.merge_base(ancestor, descendant).await?.as_ref() == Some(ancestor);
        self.objects().ancestry.insert(key, is).await;
        Ok(is)
    }

    /// <https://docs.gitlab.com/api/repositories/#retrieve-merge-base>
    async fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>> {
        let route =
            self.route(["repository", "merge_base"]).query("refs[]", one).query("refs[]", other);
        let found = self.client(Priority::Fetch).get::<CommitBody>("find merge base", &route).await;
        match found {
            Ok(found) => Ok(Some(found.id)),
            // They share no history, or one of them is not there.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                futures::try_join!(self.commit_info(one), self.commit_info(other))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// <https://docs.gitlab.com/api/commits/#list-repository-commits>
    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>> {
        let head = self.resolve_now(reference).await?;
        let route = self
            .route(["repository", "commits"])
            .query("ref_name", &head)
            .query("first_parent", true)
            .query("until", instant)
            .query("per_page", 1);
        let client = self.client(Priority::Fetch);
        let found: Vec<CommitBody> =
            client.get("find the commit of an earlier time", &route).await?;
        Ok(found.into_iter().next().map(|commit| commit.id))
    }
}

impl GitLabProject {
    pub(super) fn is_commit_known(&self, id: &CommitId) -> bool {
        self.seen.commits.contains_key(&(self.number, id.clone()))
    }

    /// A commit, asked for once.
    pub(super) async fn commit_info(&self, id: &CommitId) -> Result<Arc<CommitInfo>> {
        let key = (self.number, id.clone());
        let read = async {
            let route = self.route(["repository", "commits", id.as_str()]);
            let client = self.client(Priority::Fetch);
            let read = self.objects().settled(self.number, id.as_str(), async || {
                let read = client.get::<CommitBody>("read commit", &route).await;
                read.map_err(|error| error.with("commit", id))
            });
            Ok(Arc::new(CommitInfo::from(read.await?)))
        };
        self.seen.commits.try_get_with(key, read).await.map_err(crate::repeated::repeated)
    }
}
