//! What never changes: files, listings, how commits descend and differ, kept so that each is asked for
//! once.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use moka::future::Cache;
use workflows_core::{
    CommitId, ErrorKind, Result,
    repo::{ChangedFile, Directory, EntryKind},
};

/// What a driver has seen, of all its repositories. Keys hold the host's number of the repository, for
/// an object may be seen in one and not in another.
#[derive(Debug)]
pub(crate) struct ObjectCache {
    pub(crate) blobs: Cache<(u64, Arc<str>), Bytes>,
    pub(crate) places: Cache<PlaceKey, Option<Entry>>,
    pub(crate) listings: Cache<(PlaceKey, ListOptionsKey), Arc<Directory>>,
    /// What was not there when it was asked for, a short while ago.
    missed: Cache<(u64, Arc<str>), ()>,
    pub(crate) ancestry: Cache<(u64, CommitId, CommitId), bool>,
    pub(crate) changes: Cache<(u64, CommitId, CommitId), Arc<[ChangedFile]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PlaceKey {
    pub(crate) repo: u64,
    pub(crate) commit: CommitId,
    pub(crate) path: Arc<str>,
}

/// Whether a listing was recursive, and how many entries it could have.
pub(crate) type ListOptionsKey = (bool, usize);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    /// The id of the object.
    pub(crate) id: Arc<str>,
}

/// What a mode of git says about an entry.
pub(crate) fn kind_of(mode: u32) -> EntryKind {
    match mode & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o120_000 => EntryKind::Link,
        0o160_000 => EntryKind::Submodule,
        _ => EntryKind::File,
    }
}

/// What an entry of any cache takes besides its text.
pub(crate) const OVERHEAD: usize = 150;
/// How many small things are kept.
pub(crate) const SMALL: u64 = 20_000;

pub(crate) fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl ObjectCache {
    /// A cache of about so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        const MISSED: Duration = Duration::from_secs(300);
        Self {
            blobs: Cache::builder()
                .max_capacity(bytes / 2)
                .weigher(|_: &(u64, Arc<str>), blob: &Bytes| weight(OVERHEAD + blob.len()))
                .build(),
            places: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(|key: &PlaceKey, _: &Option<Entry>| weight(OVERHEAD + key.path.len()))
                .build(),
            listings: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(|_: &(PlaceKey, ListOptionsKey), directory: &Arc<Directory>| {
                    let entries = directory.entries.iter().map(|entry| OVERHEAD + entry.path.len());
                    weight(OVERHEAD + entries.sum::<usize>())
                })
                .build(),
            missed: Cache::builder().max_capacity(SMALL).time_to_live(MISSED).build(),
            ancestry: Cache::new(SMALL),
            changes: Cache::builder()
                .max_capacity(bytes / 8)
                .weigher(|_: &(u64, CommitId, CommitId), files: &Arc<[ChangedFile]>| {
                    let files = files.iter().map(|file| OVERHEAD + file.path.len());
                    weight(OVERHEAD + files.sum::<usize>())
                })
                .build(),
        }
    }

    /// Reads something that an event may have told of before all of the host knows it: when it is not
    /// there, it is asked for once more after a second. What was missed so is not waited for again
    /// for some minutes.
    pub(crate) async fn settled<T, F: Future<Output = Result<T>>>(
        &self,
        repo: u64,
        what: &str,
        read: impl Fn() -> F,
    ) -> Result<T> {
        const SETTLES_IN: Duration = Duration::from_secs(1);
        match read().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = (repo, Arc::from(what));
                if self.missed.contains_key(&key) {
                    return Err(error);
                }
                self.missed.insert(key, ()).await;
                tokio::time::sleep(SETTLES_IN).await;
                read().await
            }
            read => read,
        }
    }

    /// Notes what is at a place, so that reading it needs no call to find out.
    pub(crate) async fn note(
        &self,
        repo: u64,
        commit: &CommitId,
        path: &str,
        entry: Option<Entry>,
    ) {
        let key = PlaceKey { repo, commit: commit.clone(), path: path.into() };
        self.places.insert(key, entry).await;
    }

    /// What is known to be at a place.
    pub(crate) async fn noted(
        &self,
        repo: u64,
        commit: &CommitId,
        path: &str,
    ) -> Option<Option<Entry>> {
        let key = PlaceKey { repo, commit: commit.clone(), path: path.into() };
        self.places.get(&key).await
    }
}
