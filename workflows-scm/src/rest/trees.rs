//! Trees of git, and how they differ.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    sync::Arc,
};

use async_trait::async_trait;
use workflows_core::{
    Result,
    repo::{ChangedFile, EntryKind, FileChange},
};

use super::place::{joined, too_many};

/// The most files that a change can have here.
pub(crate) const MOST_CHANGED: usize = 200_000;

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) entries: Vec<TreeEntry>,
    /// Whether the host left entries out because there are too many.
    pub(crate) truncated: bool,
}

/// An entry of a tree; of a recursive one, with its path from the tree's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    pub(crate) path: Arc<str>,
    pub(crate) kind: EntryKind,
    pub(crate) id: Arc<str>,
    /// Executable or not, among other things.
    pub(crate) mode: u32,
}

/// Of which of two commits a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

/// Directories of two commits that are compared.
#[async_trait]
pub(crate) trait Directories: Debug + Sync {
    /// The entries of one directory, by its path and the id of its tree.
    async fn level(&self, side: Side, path: &str, id: &Arc<str>) -> Result<Arc<Tree>>;
}

/// The files that differ between two whole trees.
#[cfg(feature = "github")]
pub(crate) fn differing_files(old: &Tree, new: &Tree) -> Arc<[ChangedFile]> {
    let mut files = BTreeMap::new();
    compare("", old, new, &mut files, |_, _| {});
    listed(files)
}

/// The files that differ between two commits, by the ids of their root trees. Only directories that
/// differ are read.
pub(crate) async fn differing_directories(
    directories: &dyn Directories,
    old: &Arc<str>,
    new: &Arc<str>,
) -> Result<Arc<[ChangedFile]>> {
    let mut files = BTreeMap::new();
    let nothing = Arc::new(Tree { entries: Vec::new(), truncated: false });
    let first = (String::new(), Some(Arc::clone(old)), Some(Arc::clone(new)));
    let mut left = VecDeque::from([first]);
    while let Some((path, old_id, new_id)) = left.pop_front() {
        let level = async |side: Side, id: Option<Arc<str>>| match id {
            Some(id) => directories.level(side, &path, &id).await,
            None => Ok(Arc::clone(&nothing)),
        };
        let (old, new) = futures::try_join!(level(Side::Old, old_id), level(Side::New, new_id))?;
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
            return Err(too_many(MOST_CHANGED));
        }
    }
    Ok(listed(files))
}

pub(crate) fn listed(files: BTreeMap<Arc<str>, FileChange>) -> Arc<[ChangedFile]> {
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
    use crate::rest::objects::kind_of;

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
