//! What never changes: commits, trees and blobs, kept by their ids so that each is asked for once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use moka::future::Cache;
use workflows_core::{
    CommitId,
    repo::{ChangedFile, Directory, EntryKind},
};

/// The git objects that a driver has seen, of all its repositories. Keys hold GitHub's number of the
/// repository, for an object may be seen in one and not in another.
#[derive(Debug)]
pub(super) struct ObjectCache {
    pub(super) blobs: Cache<(u64, Arc<str>), Bytes>,
    pub(super) trees: Cache<TreeKey, Arc<Tree>>,
    pub(super) places: Cache<PlaceKey, Option<Entry>>,
    pub(super) listings: Cache<(PlaceKey, ListOptionsKey), Arc<Directory>>,
    pub(super) commits: Cache<(u64, CommitId), Arc<Commit>>,
    pub(super) tags: Cache<(u64, Arc<str>), Arc<str>>,
    /// What was not there when it was asked for, a short while ago.
    pub(super) missed: Cache<(u64, Arc<str>), ()>,
    pub(super) ancestry: Cache<(u64, CommitId, CommitId), bool>,
    pub(super) changes: Cache<(u64, CommitId, CommitId), Arc<[ChangedFile]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TreeKey {
    pub(super) repo: u64,
    pub(super) id: Arc<str>,
    pub(super) recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PlaceKey {
    pub(super) repo: u64,
    pub(super) commit: CommitId,
    pub(super) path: Arc<str>,
}

/// Whether a listing was recursive, and how many entries it could have.
pub(super) type ListOptionsKey = (bool, usize);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    /// The id of the object.
    pub(super) id: Arc<str>,
}

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) entries: Vec<TreeEntry>,
    /// Whether GitHub left entries out because there are too many.
    pub(super) truncated: bool,
}

/// An entry of a tree; of a recursive one, with its path from the tree's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) path: Arc<str>,
    pub(super) kind: EntryKind,
    pub(super) id: Arc<str>,
    /// Executable or not, among other things.
    pub(super) mode: u32,
}

/// What a commit says.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) info: workflows_core::repo::CommitInfo,
    pub(super) tree: Arc<str>,
}

/// What a mode of git says about an entry.
pub(super) fn kind_of(mode: u32) -> EntryKind {
    match mode & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o120_000 => EntryKind::Link,
        0o160_000 => EntryKind::Submodule,
        _ => EntryKind::File,
    }
}

impl ObjectCache {
    /// A cache of about so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        const OVERHEAD: usize = 150;
        const SMALL: u64 = 20_000;
        const MISSED: Duration = Duration::from_secs(300);
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            blobs: Cache::builder()
                .max_capacity(bytes / 2)
                .weigher(move |_: &(u64, Arc<str>), blob: &Bytes| weight(OVERHEAD + blob.len()))
                .build(),
            trees: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(move |_: &TreeKey, tree: &Arc<Tree>| {
                    let entries = tree.entries.iter().map(|entry| OVERHEAD + entry.path.len());
                    weight(OVERHEAD + entries.sum::<usize>())
                })
                .build(),
            places: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(move |key: &PlaceKey, _: &Option<Entry>| weight(OVERHEAD + key.path.len()))
                .build(),
            listings: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(move |_: &(PlaceKey, ListOptionsKey), directory: &Arc<Directory>| {
                    let entries = directory.entries.iter().map(|entry| OVERHEAD + entry.path.len());
                    weight(OVERHEAD + entries.sum::<usize>())
                })
                .build(),
            commits: Cache::new(SMALL),
            tags: Cache::new(SMALL),
            missed: Cache::builder().max_capacity(SMALL).time_to_live(MISSED).build(),
            ancestry: Cache::new(SMALL),
            changes: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(move |_: &(u64, CommitId, CommitId), files: &Arc<[ChangedFile]>| {
                    let files = files.iter().map(|file| OVERHEAD + file.path.len());
                    weight(OVERHEAD + files.sum::<usize>())
                })
                .build(),
        }
    }
}
