//! Trees of git, one at a time or whole.

use std::{collections::VecDeque, sync::Arc};

use serde::Deserialize;
use workflows_core::{CommitId, Error, Result, repo::EntryKind};

use super::{connection::GitHubRepository, objects::TreeKey};
use crate::rest::{
    Priority,
    objects::{Entry, PlaceKey, kind_of},
    place::{joined, too_many},
    trees::{Tree, TreeEntry},
};

const OPERATION: &str = "read tree";

/// <https://docs.github.com/en/rest/git/trees#get-a-tree>
#[derive(Debug, Deserialize)]
struct TreeBody {
    tree: Vec<EntryBody>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct EntryBody {
    path: Arc<str>,
    /// In octal digits.
    mode: String,
    sha: Arc<str>,
}

impl GitHubRepository {
    /// A tree, asked for once.
    pub(super) async fn tree(&self, id: &Arc<str>, recursive: bool) -> Result<Arc<Tree>> {
        let key = TreeKey { repo: self.number, id: Arc::clone(id), recursive };
        let read = async {
            let mut route = self.route(["git", "trees", id]);
            if recursive {
                route = route.query("recursive", 1);
            }
            let body: TreeBody = self.client(Priority::Fetch).get(OPERATION, &route).await?;
            let entry = |entry: EntryBody| {
                let mode = u32::from_str_radix(&entry.mode, 8).map_err(|error| {
                    Error::transient(OPERATION, "an entry of a tree has a mode that is none")
                        .with("mode", crate::printable::printable(&entry.mode))
                        .caused_by(error)
                })?;
                Ok(TreeEntry { path: entry.path, kind: kind_of(mode), id: entry.sha, mode })
            };
            let entries = body.tree.into_iter().map(entry).collect::<Result<_>>()?;
            Ok(Arc::new(Tree { entries, truncated: body.truncated }))
        };
        self.git.trees.try_get_with(key, read).await.map_err(crate::repeated::repeated)
    }

    /// All entries below a tree, at most so many; level by level when GitHub does not tell them at
    /// once.
    pub(super) async fn whole_tree(&self, id: &Arc<str>, most: usize) -> Result<Vec<TreeEntry>> {
        let whole = self.tree(id, true).await?;
        if !whole.truncated {
            return if whole.entries.len() > most {
                Err(too_many(most))
            } else {
                Ok(whole.entries.clone())
            };
        }
        let mut entries = Vec::new();
        let mut left = VecDeque::from([(String::new(), Arc::clone(id))]);
        while let Some((path, id)) = left.pop_front() {
            for entry in self.one_level(&id).await?.entries.iter() {
                if entries.len() >= most {
                    return Err(too_many(most));
                }
                let path = joined(&path, &entry.path);
                if entry.kind == EntryKind::Directory {
                    left.push_back((path.clone(), Arc::clone(&entry.id)));
                }
                entries.push(TreeEntry { path: path.into(), ..entry.clone() });
            }
        }
        Ok(entries)
    }

    /// The entries of one directory.
    pub(super) async fn one_level(&self, id: &Arc<str>) -> Result<Arc<Tree>> {
        let tree = self.tree(id, false).await?;
        if tree.truncated {
            return Err(Error::invalid(
                OPERATION,
                "GitHub does not tell all entries of a directory, because there are too many",
            )
            .with("tree", id));
        }
        Ok(tree)
    }

    /// What is at a path at a commit, found by going down from its tree.
    pub(super) async fn entry_at(&self, commit: &CommitId, path: &str) -> Result<Option<Entry>> {
        let key = PlaceKey { repo: self.number, commit: commit.clone(), path: path.into() };
        if let Some(known) = self.objects.places.get(&key).await {
            return Ok(known);
        }
        let mut at = Entry {
            kind: EntryKind::Directory,
            id: Arc::clone(&self.commit_object(commit).await?.tree),
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let next = match at.kind {
                EntryKind::Directory => {
                    let level = self.one_level(&at.id).await?;
                    level.entries.iter().find(|entry| &*entry.path == part).cloned()
                }
                _ => None,
            };
            match next {
                Some(entry) => at = Entry { kind: entry.kind, id: entry.id },
                None => {
                    self.objects.places.insert(key, None).await;
                    return Ok(None);
                }
            }
        }
        self.objects.places.insert(key, Some(at.clone())).await;
        Ok(Some(at))
    }
}
