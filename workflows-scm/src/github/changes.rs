//! The files that differ between two commits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures::{
    FutureExt, TryStreamExt,
    stream::{self, BoxStream, StreamExt},
};
use serde::Deserialize;
use workflows_core::{
    CommitId, ErrorKind, Result,
    repo::{ChangedFile, EntryKind, FileChange},
};

use super::{
    api::Priority,
    connection::GitHubRepository,
    history::Relation,
    objects::{Tree, TreeEntry},
    trees::joined,
};

/// The files that GitHub lists of a comparison; of more it does not tell that there are.
const MOST_COMPARED: usize = 300;
/// The most files that a change can have here.
const MOST_CHANGED: usize = 200_000;

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
        let mut files = BTreeMap::new();
        if !old.truncated && !new.truncated {
            compare("", &old, &new, &mut files, |_, _| {});
            return Ok(listed(files));
        }
        let nothing = Arc::new(Tree { entries: Vec::new(), truncated: false });
        let mut left = VecDeque::from([(String::new(), Some(old_id), Some(new_id))]);
        while let Some((path, old_id, new_id)) = left.pop_front() {
            let level = |id: Option<Arc<str>>| {
                let nothing = Arc::clone(&nothing);
                async move {
                    match id {
                        Some(id) => self.one_level(&id).await,
                        None => Ok(nothing),
                    }
                }
            };
            let (old, new) = futures::try_join!(level(old_id), level(new_id))?;
            compare(&path, &old, &new, &mut files, |old, new| {
                let directory = |entry: Option<&TreeEntry>| {
                    let entry = entry.filter(|entry| entry.kind == EntryKind::Directory)?;
                    Some(Arc::clone(&entry.id))
                };
                let (below_old, below_new) = (directory(old), directory(new));
                if below_old.is_some() || below_new.is_some() {
                    let name = old.or(new).map_or("", |entry| &entry.path);
                    left.push_back((joined(&path, name), below_old, below_new));
                }
            });
            if files.len() > MOST_CHANGED {
                return Err(super::trees::too_many(MOST_CHANGED));
            }
        }
        Ok(listed(files))
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

fn listed(files: BTreeMap<Arc<str>, FileChange>) -> Arc<[ChangedFile]> {
    files.into_iter().map(|(path, change)| ChangedFile { path, change }).collect()
}

/// Notes the files that differ between two trees, and hands entries that differ to `also`.
fn compare(
    path: &str,
    old: &Tree,
    new: &Tree,
    files: &mut BTreeMap<Arc<str>, FileChange>,
    mut also: impl FnMut(Option<&TreeEntry>, Option<&TreeEntry>),
) {
    let mut both: BTreeMap<&str, (Option<&TreeEntry>, Option<&TreeEntry>)> = BTreeMap::new();
    for entry in &old.entries {
        both.entry(&entry.path).or_default().0 = Some(entry);
    }
    for entry in &new.entries {
        both.entry(&entry.path).or_default().1 = Some(entry);
    }
    for (name, (old, new)) in both {
        if let (Some(old), Some(new)) = (old, new)
            && old.id == new.id
            && old.mode == new.mode
        {
            continue;
        }
        also(old, new);
        let is_file =
            |entry: Option<&TreeEntry>| entry.is_some_and(|e| e.kind != EntryKind::Directory);
        let change = match (is_file(old), is_file(new)) {
            (true, true) => FileChange::Modified,
            (true, false) => FileChange::Deleted,
            (false, true) => FileChange::Added,
            (false, false) => continue,
        };
        files.insert(joined(path, name).into(), change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::objects::kind_of;

    fn tree(entries: &[(&str, u32, &str)]) -> Tree {
        let entry = |(path, mode, id): &(&str, u32, &str)| TreeEntry {
            path: (*path).into(),
            kind: kind_of(*mode),
            id: (*id).into(),
            mode: *mode,
        };
        Tree { entries: entries.iter().map(entry).collect(), truncated: false }
    }

    #[test]
    fn trees_are_compared_by_id_and_mode() {
        let old = tree(&[
            ("d", 0o040_000, "1"),
            ("d/kept", 0o100_644, "a"),
            ("d/gone", 0o100_644, "b"),
            ("script", 0o100_644, "c"),
            ("was a file", 0o100_644, "d"),
        ]);
        let new = tree(&[
            ("d", 0o040_000, "2"),
            ("d/kept", 0o100_644, "a"),
            ("d/new", 0o100_644, "b"),
            ("script", 0o100_755, "c"),
            ("was a file", 0o040_000, "e"),
            ("was a file/now below", 0o100_644, "d"),
        ]);
        let mut files = BTreeMap::new();
        let mut directories = Vec::new();
        compare("", &old, &new, &mut files, |old, new| {
            directories.extend(old.or(new).map(|entry| entry.path.to_string()));
        });
        let files: Vec<_> = files.iter().map(|(path, change)| (&**path, *change)).collect();
        assert_eq!(
            files,
            [
                ("d/gone", FileChange::Deleted),
                ("d/new", FileChange::Added),
                ("script", FileChange::Modified),
                ("was a file", FileChange::Deleted),
                ("was a file/now below", FileChange::Added),
            ]
        );
        assert!(directories.contains(&"d".to_owned()));
        assert!(!directories.contains(&"d/kept".to_owned()));
    }
}
