//! The files that differ between two commits.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{
    FutureExt, TryStreamExt,
    stream::{self, BoxStream, StreamExt},
};
use serde::Deserialize;
use workflows_core::{
    CommitId, ErrorKind, Result,
    repo::{ChangedFile, EntryKind, FileChange},
};

use super::connection::GitLabProject;
use crate::rest::{
    Priority,
    trees::{Directories, MOST_CHANGED, Side, Tree, differing_directories, listed},
};

/// Of so many files GitLab may have left some out, and does not tell
/// (<https://docs.gitlab.com/administration/diff_limits/>).
const MAY_BE_CUT: usize = 500;

/// <https://docs.gitlab.com/api/repositories/#compare-branches-tags-or-commits>
#[derive(Debug, Deserialize)]
struct Compared {
    #[serde(default)]
    diffs: Vec<Diff>,
    #[serde(default)]
    compare_timeout: bool,
}

#[derive(Debug, Deserialize)]
struct Diff {
    old_path: Arc<str>,
    new_path: Arc<str>,
    #[serde(default)]
    new_file: bool,
    #[serde(default)]
    renamed_file: bool,
    #[serde(default)]
    deleted_file: bool,
    /// Its text was left out because of the others before it.
    #[serde(default)]
    collapsed: bool,
    #[serde(default)]
    too_large: bool,
}

impl Compared {
    /// Whether files may be missing: where GitLab begins to leave out texts, it may leave out files.
    fn may_be_cut(&self) -> bool {
        self.compare_timeout
            || self.diffs.len() >= MAY_BE_CUT
            || self.diffs.iter().any(|diff| diff.collapsed || diff.too_large)
    }

    fn files(self) -> Arc<[ChangedFile]> {
        let mut files = BTreeMap::new();
        for diff in self.diffs {
            let change = match (diff.new_file, diff.renamed_file, diff.deleted_file) {
                (true, ..) => FileChange::Added,
                (_, true, _) => {
                    files.entry(diff.old_path).or_insert(FileChange::Deleted);
                    FileChange::Added
                }
                (_, _, true) => FileChange::Deleted,
                _ => FileChange::Modified,
            };
            files.insert(diff.new_path, change);
        }
        listed(files)
    }
}

impl GitLabProject {
    /// GitLab compares the two directly. Where its list may be cut, directories are compared here.
    pub(super) fn changes(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        let (from, to) = (from.cloned(), to.clone());
        let find = async move {
            let found = match &from {
                None => self.all_files(&to).await?,
                Some(from) if *from == to => {
                    self.commit_info(&to).await?;
                    Arc::from([])
                }
                Some(from) => self.differing(from, &to).await?,
            };
            let files: Vec<ChangedFile> = found.to_vec();
            Ok(stream::iter(files.into_iter().map(Ok)))
        };
        find.into_stream().try_flatten().boxed()
    }

    async fn all_files(&self, commit: &CommitId) -> Result<Arc<[ChangedFile]>> {
        self.commit_info(commit).await?;
        let all = self.entries(commit, "", true, MOST_CHANGED).await?;
        let files = all.into_iter().filter(|entry| entry.kind != EntryKind::Directory);
        Ok(files.map(|entry| ChangedFile { path: entry.path, change: FileChange::Added }).collect())
    }

    async fn differing(&self, from: &CommitId, to: &CommitId) -> Result<Arc<[ChangedFile]>> {
        let key = (self.number, from.clone(), to.clone());
        let find = async {
            let route = self
                .route(["repository", "compare"])
                .query("from", from)
                .query("to", to)
                .query("straight", true);
            let client = self.client(Priority::Fetch);
            match client.get::<Compared>("compare commits", &route).await {
                Ok(compared) if !compared.may_be_cut() => Ok(compared.files()),
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Transient
                    ) =>
                {
                    Err(error)
                }
                // Whether there are such commits at all is told by themselves.
                _ => {
                    futures::try_join!(self.commit_info(from), self.commit_info(to))?;
                    let (old, new) = (from.as_str().into(), to.as_str().into());
                    let sides = Sides { project: self, from, to };
                    differing_directories(&sides, &old, &new).await
                }
            }
        };
        let found = self.objects().changes.try_get_with(key, find).await;
        found.map_err(crate::repeated::repeated)
    }
}

/// Directories by their paths at two commits.
#[derive(Debug)]
struct Sides<'a> {
    project: &'a GitLabProject,
    from: &'a CommitId,
    to: &'a CommitId,
}

#[async_trait]
impl Directories for Sides<'_> {
    async fn level(&self, side: Side, path: &str, _: &Arc<str>) -> Result<Arc<Tree>> {
        let commit = match side {
            Side::Old => self.from,
            Side::New => self.to,
        };
        let entries = self.project.one_level(commit, path).await?;
        Ok(Arc::new(Tree { entries, truncated: false }))
    }
}
