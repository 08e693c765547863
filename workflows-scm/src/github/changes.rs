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

use super::{connection::GitHubRepository, history::Relation};
use crate::rest::{
    Priority,
    trees::{
        Directories, MOST_CHANGED, Side, Tree, differing_directories, differing_files, listed,
    },
};

/// The files that GitHub lists of a comparison; of more it does not tell that there are.
const MOST_COMPARED: usize = 300;

/// <https://docs.github.com/en/rest/commits/commits#compare-two-commits>
#[derive(Debug, Deserialize)]
pub(super) struct Compared {
    pub(super) status: Relation,
    #[serde(default)]
    files: Option<Vec<ComparedFile>>,
    merge_base_commit: MergeBase,
}

#[derive(Debug, Deserialize)]
struct MergeBase {
    sha: CommitId,
}

#[derive(Debug, Deserialize)]
struct ComparedFile {
    filename: Arc<str>,
    status: String,
    #[serde(default)]
    previous_filename: Option<Arc<str>>,
}

impl GitHubRepository {
    /// GitHub compares from the commit at which both parted, so that its list is the difference of the
    /// two only when one descends from the other; else, and when it lists as many files as it ever
    /// does or does not compare, the trees of both are compared here.
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
                    self.commit_object(&to).await?;
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
        let tree = Arc::clone(&self.commit_object(commit).await?.tree);
        let all = self.whole_tree(&tree, MOST_CHANGED).await?;
        let files = all.into_iter().filter(|entry| entry.kind != EntryKind::Directory);
        Ok(files.map(|entry| ChangedFile { path: entry.path, change: FileChange::Added }).collect())
    }

    async fn differing(&self, from: &CommitId, to: &CommitId) -> Result<Arc<[ChangedFile]>> {
        let key = (self.number, from.clone(), to.clone());
        let find = async {
            match self.compare(from, to).await {
                Ok(Compared {
                    status: Relation::Ahead | Relation::Identical,
                    files: Some(files),
                    ..
                }) if files.len() < MOST_COMPARED => Ok(named(files)),
                Ok(_) => self.tree_difference(from, to).await,
                // They share no history, or the comparison is too much for GitHub. Whether there
                // are such commits at all is told by their trees.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Transient
                    ) =>
                {
                    tracing::debug!(%error, "commits are compared by their trees");
                    self.tree_difference(from, to).await
                }
                Err(error) => Err(error),
            }
        };
        self.objects.changes.try_get_with(key, find).await.map_err(crate::repeated::repeated)
    }

    /// Where a head parted from its base; `None` when they share no history. What GitHub tells with it,
    /// the files that differ since, is kept, for it is asked for next.
    pub(super) async fn parted(
        &self,
        base: &CommitId,
        head: &CommitId,
    ) -> Result<Option<CommitId>> {
        let compared = match self.compare(base, head).await {
            // The files are too many for GitHub.
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Transient) => {
                self.relate(base, head).await
            }
            compared => compared,
        };
        let compared = match compared {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                futures::try_join!(self.commit_object(base), self.commit_object(head))?;
                return Ok(None);
            }
            compared => compared?,
        };
        let parted = compared.merge_base_commit.sha;
        if let Some(files) = compared.files.filter(|files| files.len() < MOST_COMPARED) {
            let key = (self.number, parted.clone(), head.clone());
            self.objects.changes.insert(key, named(files)).await;
        }
        Ok(Some(parted))
    }

    async fn compare(&self, base: &CommitId, head: &CommitId) -> Result<Compared> {
        let route = self.route(["compare", &format!("{base}...{head}")]).query("per_page", 1);
        self.client(Priority::Fetch).get("compare commits", &route).await
    }

    /// How two commits lie to each other, without the files, which stand on the first page alone.
    pub(super) async fn relate(&self, base: &CommitId, head: &CommitId) -> Result<Compared> {
        let route = self
            .route(["compare", &format!("{base}...{head}")])
            .query("per_page", 1)
            .query("page", 2);
        let compared: Compared =
            self.client(Priority::Fetch).get("compare commits", &route).await?;
        Ok(Compared { files: None, ..compared })
    }

    /// The tree of a commit, by its id and whole.
    async fn tree_of(&self, commit: &CommitId) -> Result<(Arc<str>, Arc<Tree>)> {
        let commit = self.commit_object(commit).await?;
        let whole = self.tree(&commit.tree, true).await?;
        Ok((Arc::clone(&commit.tree), whole))
    }

    /// The difference of two whole trees; of trees too large to be told at once, only of the
    /// directories that differ.
    async fn tree_difference(&self, from: &CommitId, to: &CommitId) -> Result<Arc<[ChangedFile]>> {
        let ((old_id, old), (new_id, new)) =
            futures::try_join!(self.tree_of(from), self.tree_of(to))?;
        if !old.truncated && !new.truncated {
            return Ok(differing_files(&old, &new));
        }
        differing_directories(&Levels(self), &old_id, &new_id).await
    }
}

/// Directories by the ids of their trees.
#[derive(Debug)]
struct Levels<'a>(&'a GitHubRepository);

#[async_trait]
impl Directories for Levels<'_> {
    async fn level(&self, _: Side, _: &str, id: &Arc<str>) -> Result<Arc<Tree>> {
        self.0.one_level(id).await
    }
}

/// The files that GitHub names, a renamed one by both its names.
fn named(found: Vec<ComparedFile>) -> Arc<[ChangedFile]> {
    let mut files = BTreeMap::new();
    for file in found {
        let change = match file.status.as_str() {
            "added" | "copied" => FileChange::Added,
            "removed" => FileChange::Deleted,
            "unchanged" => continue,
            "renamed" => {
                if let Some(previous) = file.previous_filename {
                    files.entry(previous).or_insert(FileChange::Deleted);
                }
                FileChange::Added
            }
            _ => FileChange::Modified,
        };
        files.insert(file.filename, change);
    }
    listed(files)
}
