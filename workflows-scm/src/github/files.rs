//! Files and directories at a commit.
//!
//! A listing of a directory brings the texts of the files in it, in one query, so that reading them
//! afterwards costs no call; what has the same content at another commit is not read again.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use workflows_core::{
    CommitId, Error, ErrorKind, Result,
    repo::{Directory, DirectoryEntry, EntryKind, ListOptions, ReadLimit},
};

use super::connection::GitHubRepository;
use crate::rest::{
    Priority,
    objects::{Entry, PlaceKey, kind_of},
    place::{joined, normal, too_large, too_many},
};

const READ: &str = "read file";
const LIST: &str = "list directory";

/// <https://docs.github.com/en/rest/repos/contents#get-repository-content>
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ContentBody {
    One(FileBody),
    /// A directory.
    Several(
        #[allow(dead_code, reason = "that it is a list says that it is a directory")]
        Vec<serde::de::IgnoredAny>,
    ),
}

#[derive(Debug, Deserialize)]
struct FileBody {
    #[serde(rename = "type")]
    kind: String,
    sha: Arc<str>,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    content: Option<String>,
}

impl GitHubRepository {
    /// A file. GitHub itself follows a link to another file of the repository, unless a listing has
    /// told that it is one.
    pub(super) async fn file(
        &self,
        commit: &CommitId,
        path: &str,
        limit: ReadLimit,
    ) -> Result<Bytes> {
        let path = normal(READ, path)?;
        let at = |error: Error| error.with("path", &path).with("commit", commit);
        let blob = match self.objects.noted(self.number, commit, &path).await {
            Some(Some(entry)) if entry.kind == EntryKind::File => {
                let key = (self.number, Arc::clone(&entry.id));
                match self.objects.blobs.get(&key).await {
                    Some(blob) => blob,
                    None => self.blob(&entry.id, limit).await.map_err(at)?,
                }
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

    async fn content(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        let route = self.route(["contents"]).below(path)?.query("ref", commit);
        let client = self.client(Priority::Fetch);
        let known = self.git.commits.contains_key(&(self.number, commit.clone()));
        let found: ContentBody = match client.get(READ, &route).await {
            Err(error) if error.kind() == ErrorKind::NotFound && !known => {
                // Either is missing, the file or (as yet) the commit.
                self.commit_object(commit).await?;
                client.get(READ, &route).await?
            }
            found => found?,
        };
        let ContentBody::One(found) = found else {
            return Err(Error::invalid(READ, "it is a directory, no file"));
        };
        if found.kind != "file" {
            return Err(Error::invalid(READ, "it is no file"));
        }
        if found.size > limit.max_bytes {
            return Err(too_large(READ, found.size, limit));
        }
        let entry = Entry { kind: EntryKind::File, id: Arc::clone(&found.sha) };
        let key = (self.number, Arc::clone(&found.sha));
        let blob = match (found.encoding.as_deref(), found.content) {
            (Some("base64"), Some(text)) => {
                let text: String = text.split_ascii_whitespace().collect();
                let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
                    Error::transient(READ, "GitHub's answer is not understood").caused_by(error)
                })?;
                Bytes::from(bytes)
            }
            // Beyond a mebibyte GitHub leaves the content out.
            _ => self.blob(&found.sha, limit).await?,
        };
        self.objects.blobs.insert(key, blob.clone()).await;
        self.objects.note(self.number, commit, path, Some(entry)).await;
        Ok(blob)
    }

    async fn blob(&self, id: &Arc<str>, limit: ReadLimit) -> Result<Bytes> {
        let key = (self.number, Arc::clone(id));
        let read = async {
            let route = self.route(["git", "blobs", id]);
            self.client(Priority::Fetch).get_raw(READ, &route, limit.max_bytes).await
        };
        self.objects.blobs.try_get_with(key, read).await.map_err(crate::repeated::repeated)
    }

    /// A directory. One query brings it with its texts where GraphQL can be asked, which is not for
    /// the whole of a repository, and not without a credential; else trees are read.
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
        let listed = self.objects.listings.try_get_with(key, read).await;
        listed.map(|directory| Directory::clone(&directory)).map_err(crate::repeated::repeated)
    }

    async fn read_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        if !path.is_empty() && !self.api.authorizer().is_anonymous() {
            let queried = self.settled(commit.as_str(), || self.query(commit, path, options));
            match queried.await {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Invalid
                            | ErrorKind::Denied
                            | ErrorKind::Transient
                            // GraphQL has an hour of its own.
                            | ErrorKind::RateLimited { .. }
                    ) =>
                {
                    tracing::debug!(%error, path, "a directory is read without GraphQL");
                }
                answered => return answered,
            }
        }
        self.walk(commit, path, options).await
    }

    async fn walk(&self, commit: &CommitId, path: &str, options: ListOptions) -> Result<Directory> {
        let Some(entry) = self.entry_at(commit, path).await? else {
            return Ok(Directory::default());
        };
        if entry.kind != EntryKind::Directory {
            return Err(Error::invalid(LIST, "it is no directory"));
        }
        let found = if options.recursive {
            self.whole_tree(&entry.id, options.max_entries).await?
        } else {
            self.one_level(&entry.id).await?.entries.clone()
        };
        if found.len() > options.max_entries {
            return Err(too_many(options.max_entries));
        }
        let mut entries = Vec::with_capacity(found.len());
        for one in found {
            let place = joined(path, &one.path);
            let noted = Entry { kind: one.kind, id: Arc::clone(&one.id) };
            self.objects.note(self.number, commit, &place, Some(noted)).await;
            entries.push(DirectoryEntry { path: one.path, kind: one.kind, digest: Some(one.id) });
        }
        Ok(Directory::new(Some(entry.id), entries))
    }
}

/// How deep one query looks.
const LEVELS: usize = 4;

/// A query for a directory and what is below it. Fields:
/// <https://docs.github.com/en/graphql/reference/objects#treeentry>.
fn directory_query(recursive: bool) -> String {
    let level = |below: &str| {
        format!(
            "... on Tree {{ entries {{ name mode oid object {{ ... on Blob {{ text byteSize \
             isTruncated }} {below} }} }} }}"
        )
    };
    let levels = if recursive { LEVELS } else { 1 };
    let entries = (0..levels).fold(String::new(), |below, _| level(&below));
    format!(
        "query($owner: String!, $name: String!, $commit: GitObjectID!, $place: String!) {{ \
         repository(owner: $owner, name: $name) {{ commit: object(oid: $commit) {{ __typename }} \
         directory: object(expression: $place) {{ __typename oid {entries} }} }} }}"
    )
}

#[derive(Debug, Deserialize)]
struct Queried {
    #[serde(default)]
    repository: Option<QueriedRepository>,
}

#[derive(Debug, Deserialize)]
struct QueriedRepository {
    commit: Option<Value>,
    directory: Option<QueriedDirectory>,
}

#[derive(Debug, Deserialize)]
struct QueriedDirectory {
    #[serde(rename = "__typename")]
    kind: String,
    oid: Arc<str>,
    #[serde(default)]
    entries: Vec<QueriedEntry>,
}

#[derive(Debug, Deserialize)]
struct QueriedEntry {
    name: String,
    mode: u32,
    oid: Arc<str>,
    #[serde(default)]
    object: Option<QueriedObject>,
}

/// A blob's fields or a tree's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueriedObject {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    byte_size: usize,
    #[serde(default)]
    is_truncated: bool,
    /// Not asked for below the last level.
    #[serde(default)]
    entries: Option<Vec<QueriedEntry>>,
}

impl GitHubRepository {
    async fn query(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        let variables = json!({
            "owner": self.path.owner, "name": self.path.name,
            "commit": commit, "place": format!("{commit}:{path}"),
        });
        let client = self.client(Priority::Fetch);
        let queried: Queried =
            client.graphql(LIST, &directory_query(options.recursive), variables).await?;
        let missing = |what: &str| Error::not_found(LIST, what.to_owned());
        let repository =
            queried.repository.ok_or_else(|| missing("there is no such repository"))?;
        if repository.commit.is_none() {
            return Err(missing("there is no such commit"));
        }
        let Some(directory) = repository.directory else {
            self.objects.note(self.number, commit, path, None).await;
            return Ok(Directory::default());
        };
        if directory.kind != "Tree" {
            return Err(Error::invalid(LIST, "it is no directory"));
        }
        let mut entries = Vec::new();
        let mut left: Vec<(String, QueriedEntry)> =
            directory.entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let mut noted = Vec::new();
        while let Some((name, entry)) = left.pop() {
            if entries.len() >= options.max_entries {
                return Err(too_many(options.max_entries));
            }
            let kind = kind_of(entry.mode);
            noted.push((joined(path, &name), Entry { kind, id: Arc::clone(&entry.oid) }));
            if let Some(object) = entry.object {
                match (kind, object.entries) {
                    (EntryKind::File, _) => {
                        self.keep_text(
                            &entry.oid,
                            object.text,
                            object.byte_size,
                            object.is_truncated,
                        )
                        .await
                    }
                    (EntryKind::Directory, Some(below)) => {
                        left.extend(below.into_iter().map(|one| (joined(&name, &one.name), one)));
                    }
                    (EntryKind::Directory, None) if options.recursive => {
                        return Err(Error::invalid(
                            LIST,
                            "the directory is deeper than one query looks",
                        ));
                    }
                    _ => {}
                }
            }
            entries.push(DirectoryEntry { path: name.into(), kind, digest: Some(entry.oid) });
        }
        for (place, entry) in noted {
            self.objects.note(self.number, commit, &place, Some(entry)).await;
        }
        let itself = Entry { kind: EntryKind::Directory, id: Arc::clone(&directory.oid) };
        self.objects.note(self.number, commit, path, Some(itself)).await;
        Ok(Directory::new(Some(directory.oid), entries))
    }

    /// Keeps the text of a blob, when it is the blob's bytes: GitHub makes text of other encodings
    /// too.
    async fn keep_text(&self, id: &Arc<str>, text: Option<String>, size: usize, cut: bool) {
        if let Some(text) = text.filter(|text| !cut && text.len() == size) {
            self.objects.blobs.insert((self.number, Arc::clone(id)), Bytes::from(text)).await;
        }
    }
}
