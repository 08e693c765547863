//! Git's own objects: commits, trees and tags, kept by their ids so that each is asked for once.

use std::sync::Arc;

use moka::future::Cache;
use workflows_core::CommitId;

use crate::rest::{
    objects::{OVERHEAD, SMALL, weight},
    trees::Tree,
};

/// The git objects that a driver has seen, of all its repositories. Keys hold GitHub's number of the
/// repository, for an object may be seen in one and not in another.
#[derive(Debug)]
pub(super) struct GitObjects {
    pub(super) trees: Cache<TreeKey, Arc<Tree>>,
    pub(super) commits: Cache<(u64, CommitId), Arc<Commit>>,
    pub(super) tags: Cache<(u64, Arc<str>), Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TreeKey {
    pub(super) repo: u64,
    pub(super) id: Arc<str>,
    pub(super) recursive: bool,
}

/// What a commit says.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) info: workflows_core::repo::CommitInfo,
    pub(super) tree: Arc<str>,
}

impl GitObjects {
    /// A cache of about so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            trees: Cache::builder()
                .max_capacity(bytes)
                .weigher(|_: &TreeKey, tree: &Arc<Tree>| {
                    let entries = tree.entries.iter().map(|entry| OVERHEAD + entry.path.len());
                    weight(OVERHEAD + entries.sum::<usize>())
                })
                .build(),
            commits: Cache::new(SMALL),
            tags: Cache::new(SMALL),
        }
    }
}
