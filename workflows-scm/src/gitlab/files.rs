//! Files and directories at a commit.
//!
//! After a directory was listed, the texts of the files in it come with one query, so that reading them
//! costs no further call; what has the same content at another commit is not read again.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::json;
use workflows_core::{
    CommitId, Error, ErrorKind, Result, hash_of,
    repo::{Directory, DirectoryEntry, EntryKind, ListOptions, ReadLimit},
};

use super::connection::GitLabProject;
use crate::rest::{
    Priority, Route,
    objects::{Entry, PlaceKey, kind_of},
    place::{joined, normal, too_large, too_many},
    trees::TreeEntry,
};

const READ: &str = "read file";
const LIST: &str = "list directory";
/// The texts of so many files come with one query.
const MOST_TEXTS: usize = 100;

/// <https://docs.gitlab.com/api/repositories/#list-repository-tree>
#[derive(Debug, Deserialize)]
struct EntryBody {
    id: Arc<str>,
    /// From the root of the repository.
    path: String,
    /// In octal digits.
    mode: String,
}

impl GitLabProject {
    /// A file. Of a link, GitLab tells the address that it holds, unless a listing has told that it is
    /// one.
    pub(super) async fn file(
        &self,
        commit: &CommitId,
        path: &str,
        limit: ReadLimit,
    ) -> Result<Bytes> {
        let path = normal(READ, path)?;
        let at = |error: Error| error.with("path", &path).with("commit", commit);
        let blob = match self.objects().noted(self.number, commit, &path).await {
            Some(Some(entry)) if entry.kind == EntryKind::File => {
                self.blob(&entry.id, limit).await.map_err(at)?
            }
            Some(Some(_)) => return Err(at(Error::invalid(READ, "it is no file"))),
            Some(None) => return Err(at(Error::not_found(READ, "there is no such file"))),
            None => self.content(commit, &path, limit).await.map_err(at)?,
        };
        if blob.len() > limit.max_bytes {
            return Err(at(too_large(READ, blob.len(), limit)));
        }
        Ok(blob)
    }

    /// <https://docs.gitlab.com/api/repository_files/#retrieve-a-raw-file-from-a-repository>
    async fn content(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        let route = self.route(["repository", "files", path, "raw"]).query("ref", commit);
        let client = self.client(Priority::Fetch);
        let read = async || client.get_raw(READ, &route, limit.max_bytes).await;
        match read().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Either is missing, the file or (as yet) the commit; or it is a directory.
                let is_new = !self.is_commit_known(commit);
                self.commit_info(commit).await?;
                if is_new && let Ok(late) = read().await {
                    return Ok(late);
                }
                let listed = self.one_level(commit, path).await;
                if listed.is_ok_and(|entries| !entries.is_empty()) {
                    return Err(Error::invalid(READ, "it is a directory, no file"));
                }
                Err(error)
            }
            read => read,
        }
    }

    /// <https://docs.gitlab.com/api/repositories/#retrieve-a-raw-blob>
    async fn blob(&self, id: &Arc<str>, limit: ReadLimit) -> Result<Bytes> {
        let key = (self.number, Arc::clone(id));
        let read = async {
            let route = self.route(["repository", "blobs", id, "raw"]);
            self.client(Priority::Fetch).get_raw(READ, &route, limit.max_bytes).await
        };
        let read = self.objects().blobs.try_get_with(key, read).await;
        read.map_err(crate::repeated::repeated)
    }

    /// A directory, asked for once.
    pub(super) async fn directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        let path = normal(LIST, path)?;
        let place =
            PlaceKey { repo: self.number, commit: commit.clone(), path: path.as_str().into() };
        let key = (place, (options.recursive, options.max_entries));
        let read = async {
            let listed = self.read_directory(commit, &path, options).await;
            listed.map(Arc::new).map_err(|error| error.with("path", &path).with("commit", commit))
        };
        let listed = self.objects().listings.try_get_with(key, read).await;
        listed.map(|directory| Directory::clone(&directory)).map_err(crate::repeated::repeated)
    }

    async fn read_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        let found = match self.entries(commit, path, options.recursive, options.max_entries).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Either is missing, the directory or (as yet) the commit.
                let is_new = !self.is_commit_known(commit);
                self.commit_info(commit).await?;
                let again = is_new
                    .then(|| self.entries(commit, path, options.recursive, options.max_entries));
                match again {
                    Some(again) => again.await,
                    None => Err(error),
                }
            }
            found => found,
        };
        let found = match found {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            found => found?,
        };
        // Git has no empty directories.
        if found.is_empty() && !path.is_empty() {
            self.objects().note(self.number, commit, path, None).await;
            return Ok(Directory::default());
        }
        for one in &found {
            let noted = Entry { kind: one.kind, id: Arc::clone(&one.id) };
            let place = joined(path, &one.path);
            self.objects().note(self.number, commit, &place, Some(noted)).await;
        }
        if !path.is_empty() {
            self.bring_texts(commit, path, &found).await;
        }
        let digest = digest_of(&found);
        let entry = |one: TreeEntry| DirectoryEntry {
            path: one.path,
            kind: one.kind,
            digest: Some(one.id),
        };
        Ok(Directory::new(Some(digest), found.into_iter().map(entry).collect()))
    }

    /// The entries of one directory, with their paths from it.
    pub(super) async fn one_level(&self, commit: &CommitId, path: &str) -> Result<Vec<TreeEntry>> {
        self.entries(commit, path, false, crate::rest::trees::MOST_CHANGED).await
    }

    /// The entries of a directory, page by page, at most so many.
    pub(super) async fn entries(
        &self,
        commit: &CommitId,
        path: &str,
        recursive: bool,
        most: usize,
    ) -> Result<Vec<TreeEntry>> {
        let mut route: Route = self.route(["repository", "tree"]).query("ref", commit);
        if !path.is_empty() {
            route = route.query("path", path);
        }
        if recursive {
            route = route.query("recursive", true);
        }
        let route = route.query("per_page", 100).query("pagination", "keyset");
        let mut pages = self.client(Priority::Fetch).pages::<EntryBody>(LIST, route);
        let mut entries = Vec::new();
        while let Some(entry) = pages.try_next().await? {
            if entries.len() >= most {
                return Err(too_many(most));
            }
            let mode = u32::from_str_radix(&entry.mode, 8).map_err(|error| {
                Error::transient(LIST, "an entry of a tree has a mode that is none")
                    .with("mode", crate::printable::printable(&entry.mode))
                    .caused_by(error)
            })?;
            let below = match path {
                "" => Some(entry.path.as_str()),
                path => entry.path.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(below) = below else { continue };
            entries.push(TreeEntry { path: below.into(), kind: kind_of(mode), id: entry.id, mode });
        }
        Ok(entries)
    }

    /// Brings the texts of the files of a directory, as far as they are not known.
    async fn bring_texts(&self, commit: &CommitId, path: &str, entries: &[TreeEntry]) {
        let files = entries.iter().filter(|one| one.kind == EntryKind::File);
        let unknown = |one: &&TreeEntry| {
            !self.objects().blobs.contains_key(&(self.number, Arc::clone(&one.id)))
        };
        let wanted: BTreeMap<String, &TreeEntry> = files
            .filter(unknown)
            .take(MOST_TEXTS)
            .map(|one| (joined(path, &one.path), one))
            .collect();
        // One is read as well by itself.
        if wanted.len() < 2 || self.api.authorizer().is_anonymous() {
            return;
        }
        match self.texts(commit, wanted.keys()).await {
            Ok(texts) => {
                for (id, text) in texts {
                    self.objects().blobs.insert((self.number, id), text).await;
                }
            }
            Err(error) => tracing::debug!(%error, path, "files are read one by one"),
        }
    }

    /// <https://docs.gitlab.com/api/graphql/reference/#repositoryblobs>
    async fn texts(
        &self,
        commit: &CommitId,
        paths: impl Iterator<Item = &String>,
    ) -> Result<Vec<(Arc<str>, Bytes)>> {
        const QUERY: &str = "query($project: ID!, $commit: String!, $paths: [String!]!) { \
             project(fullPath: $project) { repository { blobs(ref: $commit, paths: $paths) { nodes { \
             oid rawSize rawTextBlob } } } } }";
        let paths: Vec<&String> = paths.collect();
        let variables = json!({ "project": self.path, "commit": commit, "paths": paths });
        let client = self.client(Priority::Fetch);
        let queried: Queried = client.graphql(LIST, QUERY, variables).await?;
        let nodes = queried
            .project
            .and_then(|project| project.repository)
            .map_or_else(Vec::new, |repository| repository.blobs.nodes);
        let text = |node: Blob| {
            let text = node.raw_text_blob?;
            // What is no text, or was cut, is another length.
            (Some(text.len()) == node.raw_size.as_deref().and_then(|size| size.parse().ok()))
                .then(|| (node.oid, Bytes::from(text)))
        };
        Ok(nodes.into_iter().filter_map(text).collect())
    }
}

/// A name for the content of a directory: what lies in it names what lies below.
fn digest_of(entries: &[TreeEntry]) -> Arc<str> {
    let mut lines: Vec<String> = entries
        .iter()
        .filter(|one| !one.path.contains('/'))
        .map(|one| format!("{:o} {} {}", one.mode, one.id, one.path))
        .collect();
    lines.sort();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    hash_of(&lines).into()
}

#[derive(Debug, Deserialize)]
struct Queried {
    #[serde(default)]
    project: Option<QueriedProject>,
}

#[derive(Debug, Deserialize)]
struct QueriedProject {
    #[serde(default)]
    repository: Option<QueriedRepository>,
}

#[derive(Debug, Deserialize)]
struct QueriedRepository {
    blobs: Blobs,
}

#[derive(Debug, Deserialize)]
struct Blobs {
    nodes: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    oid: Arc<str>,
    /// A number as text, for it may be large.
    #[serde(default)]
    raw_size: Option<String>,
    #[serde(default)]
    raw_text_blob: Option<String>,
}
