//! A repository's objects and refs, in a bare repository of git's own.

use std::path::{Path, PathBuf};

use git2::{
    Commit, Delta, DiffFindOptions, DiffOptions, ErrorCode, ObjectType, Oid, Repository, Signature,
    Sort, Time, Tree, TreeWalkMode, TreeWalkResult, build::TreeUpdateBuilder,
};
use jiff::Timestamp;

/// What git answers.
pub type Git<T> = Result<T, git2::Error>;

/// Who wrote a commit.
#[derive(Debug, Clone)]
pub struct Person {
    /// By this name.
    pub name: String,
    /// With this address.
    pub email: String,
}

/// A file that is to be another one, or to be gone.
#[derive(Debug, Clone)]
pub struct FileEdit {
    /// Where it is.
    pub path: String,
    /// Its bytes and its mode; gone when there are none.
    pub content: Option<(Vec<u8>, u32)>,
}

/// An entry of a tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// From where the listing began.
    pub path: String,
    /// What it is, and whether it can be executed.
    pub mode: u32,
    /// The object.
    pub id: Oid,
    /// Of a blob.
    pub size: Option<usize>,
}

impl Entry {
    /// `tree`, `blob`, or `commit` for a submodule.
    pub fn kind(&self) -> &'static str {
        match self.mode & 0o170_000 {
            0o040_000 => "tree",
            0o160_000 => "commit",
            _ => "blob",
        }
    }
}

/// A file that differs between two commits.
#[derive(Debug, Clone)]
pub struct FileDiff {
    /// Where it is, or was.
    pub path: String,
    /// Where it was, when it was renamed.
    pub previous: Option<String>,
    /// `added`, `removed`, `renamed`, `copied`, `changed` or `modified`.
    pub status: &'static str,
    /// Its content.
    pub blob: Oid,
    /// Lines that came.
    pub additions: usize,
    /// Lines that went.
    pub deletions: usize,
}

/// A bare repository.
pub struct Objects {
    repo: Repository,
    path: PathBuf,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("path", &self.path).finish()
    }
}

impl Objects {
    /// Makes one.
    pub fn create(path: &Path, default_branch: &str) -> Git<Self> {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).initial_head(default_branch);
        let repo = Repository::init_opts(path, &options)?;
        Ok(Self { repo, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what another repository has at some refs, by git's own fetch.
    pub fn fetch(&self, from: &Path, refspecs: &[String]) -> Git<()> {
        let mut remote = self.repo.remote_anonymous(&from.to_string_lossy())?;
        let mut options = git2::FetchOptions::new();
        options.download_tags(git2::AutotagOption::None);
        remote.fetch(refspecs, Some(&mut options), None)
    }

    /// Where a ref of this full name stands, at a tag object too.
    pub fn position(&self, reference: &str) -> Option<Oid> {
        self.repo.find_reference(reference).ok()?.target()
    }

    /// All refs that begin with a prefix, in order.
    pub fn refs(&self, prefix: &str) -> Vec<(String, Oid)> {
        let mut found: Vec<(String, Oid)> = self
            .repo
            .references()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|one| Some((one.name().ok()?.to_owned(), one.target()?)))
            .filter(|(name, _)| name.starts_with(prefix))
            .collect();
        found.sort();
        found
    }

    /// Puts a ref somewhere.
    pub fn set_ref(&self, reference: &str, to: Oid) -> Git<()> {
        self.repo.reference(reference, to, true, "").map(drop)
    }

    /// Takes a ref away, if it is there.
    pub fn delete_ref(&self, reference: &str) -> Git<()> {
        match self.repo.find_reference(reference) {
            Ok(mut found) => found.delete(),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A commit.
    pub fn commit(&self, id: Oid) -> Option<Commit<'_>> {
        self.repo.find_commit(id).ok()
    }

    /// The commit that a branch, a tag, a ref or an id names, as routes with a `ref` understand it.
    pub fn resolve(&self, name: &str) -> Option<Oid> {
        if let Some(id) = full_id(name) {
            return self.commit(id).map(|commit| commit.id());
        }
        let candidates = [
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/{name}"),
            name.to_owned(),
        ];
        let found = candidates.iter().find_map(|name| self.repo.find_reference(name).ok());
        let commit = found.and_then(|found| found.peel_to_commit().ok()).map(|commit| commit.id());
        commit.or_else(|| {
            let short = name.len() >= 7 && name.bytes().all(|b| b.is_ascii_hexdigit());
            let object = short.then(|| self.repo.revparse_single(name).ok()).flatten()?;
            object.peel_to_commit().ok().map(|commit| commit.id())
        })
    }

    /// What an object is.
    pub fn kind(&self, id: Oid) -> Option<ObjectType> {
        self.repo.find_object(id, None).ok()?.kind()
    }

    /// The content of a file.
    pub fn blob(&self, id: Oid) -> Option<Vec<u8>> {
        self.repo.find_blob(id).ok().map(|blob| blob.content().to_vec())
    }

    /// An annotated tag.
    pub fn tag(&self, id: Oid) -> Option<git2::Tag<'_>> {
        self.repo.find_tag(id).ok()
    }

    /// Makes an annotated tag's object.
    pub fn annotate(
        &self,
        name: &str,
        target: Oid,
        message: &str,
        by: &Person,
        at: Timestamp,
    ) -> Git<Oid> {
        let target = self.repo.find_object(target, None)?;
        self.repo.tag_annotation_create(name, &target, &signature(by, at)?, message)
    }

    /// Writes a commit whose tree is that of its first parent with some files edited.
    pub fn write_commit(
        &self,
        parents: &[Oid],
        edits: &[FileEdit],
        message: &str,
        by: &Person,
        at: Timestamp,
    ) -> Git<Oid> {
        let tree = match parents.first() {
            Some(first) => self.repo.find_commit(*first)?.tree()?,
            None => self.repo.find_tree(self.repo.treebuilder(None)?.write()?)?,
        };
        let tree = self.edited(&tree, edits)?;
        self.write_commit_of(tree, parents, message, by, at)
    }

    /// Writes a commit of a tree.
    pub fn write_commit_of(
        &self,
        tree: Oid,
        parents: &[Oid],
        message: &str,
        by: &Person,
        at: Timestamp,
    ) -> Git<Oid> {
        let by = signature(by, at)?;
        let parents =
            parents.iter().map(|id| self.repo.find_commit(*id)).collect::<Git<Vec<_>>>()?;
        let parents: Vec<&Commit<'_>> = parents.iter().collect();
        self.repo.commit(None, &by, &by, message, &self.repo.find_tree(tree)?, &parents)
    }

    fn edited(&self, tree: &Tree<'_>, edits: &[FileEdit]) -> Git<Oid> {
        let mut update = TreeUpdateBuilder::new();
        for edit in edits {
            match &edit.content {
                Some((bytes, mode)) => {
                    let mode = match mode {
                        0o100_755 => git2::FileMode::BlobExecutable,
                        0o120_000 => git2::FileMode::Link,
                        _ => git2::FileMode::Blob,
                    };
                    update.upsert(edit.path.as_str(), self.repo.blob(bytes)?, mode);
                }
                None => {
                    update.remove(edit.path.as_str());
                }
            }
        }
        update.create_updated(&self.repo, tree)
    }

    /// The tree that merging a head into a base makes; `None` when they conflict or share nothing.
    pub fn merged_tree(&self, base: Oid, head: Oid) -> Option<Oid> {
        let (base, head) = (self.commit(base)?, self.commit(head)?);
        self.repo.merge_base(base.id(), head.id()).ok()?;
        let mut index = self.repo.merge_commits(&base, &head, None).ok()?;
        if index.has_conflicts() {
            return None;
        }
        index.write_tree_to(&self.repo).ok()
    }

    /// The tree of a commit, or one that is named by its own id.
    pub fn tree(&self, name: &str) -> Option<Oid> {
        if let Some(id) = full_id(name)
            && let Ok(tree) = self.repo.find_tree(id)
        {
            return Some(tree.id());
        }
        Some(self.commit(self.resolve(name)?)?.tree_id())
    }

    /// What is in a tree.
    pub fn entries(&self, tree: Oid, recursive: bool) -> Git<Vec<Entry>> {
        let tree = self.repo.find_tree(tree)?;
        let mut entries = Vec::new();
        tree.walk(TreeWalkMode::PreOrder, |directory, entry| {
            let mode = u32::try_from(entry.filemode()).unwrap_or_default();
            let is_blob = entry.kind() == Some(ObjectType::Blob);
            let size = is_blob.then(|| self.size(entry.id())).flatten();
            entries.push(Entry {
                path: format!("{directory}{}", entry.name().unwrap_or_default()),
                mode,
                id: entry.id(),
                size,
            });
            if recursive { TreeWalkResult::Ok } else { TreeWalkResult::Skip }
        })?;
        Ok(entries)
    }

    /// How large an object is.
    pub fn size(&self, id: Oid) -> Option<usize> {
        self.repo.odb().ok()?.read_header(id).ok().map(|(size, _)| size)
    }

    /// What is at a path at a commit; the root is a tree.
    pub fn at(&self, commit: Oid, path: &str) -> Option<Entry> {
        let tree = self.commit(commit)?.tree().ok()?;
        if path.is_empty() {
            return Some(Entry { path: String::new(), mode: 0o040_000, id: tree.id(), size: None });
        }
        let found = tree.get_path(Path::new(path)).ok()?;
        let mode = u32::try_from(found.filemode()).ok()?;
        let size = self.size(found.id()).filter(|_| mode & 0o170_000 != 0o040_000);
        Some(Entry { path: path.to_owned(), mode, id: found.id(), size })
    }

    /// Where two commits parted.
    pub fn merge_base(&self, one: Oid, other: Oid) -> Option<Oid> {
        self.repo.merge_base(one, other).ok()
    }

    /// Whether one is the other or before it.
    pub fn is_ancestor(&self, ancestor: Oid, descendant: Oid) -> bool {
        ancestor == descendant
            || self.repo.graph_descendant_of(descendant, ancestor).unwrap_or(false)
    }

    /// The commits that `to` has and `from` has not, newest first.
    pub fn between(&self, from: Option<Oid>, to: Oid) -> Git<Vec<Oid>> {
        let mut walk = self.repo.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
        walk.push(to)?;
        if let Some(from) = from {
            walk.hide(from)?;
        }
        walk.collect()
    }

    /// The files that differ; from nothing, all.
    pub fn diff(&self, from: Option<Oid>, to: Oid) -> Git<Vec<FileDiff>> {
        let old = from.map(|id| self.repo.find_commit(id)?.tree()).transpose()?;
        let new = self.repo.find_commit(to)?.tree()?;
        let mut diff = self.repo.diff_tree_to_tree(
            old.as_ref(),
            Some(&new),
            Some(DiffOptions::new().context_lines(0)),
        )?;
        diff.find_similar(Some(DiffFindOptions::new().renames(true)))?;
        let mut files = Vec::new();
        for (index, delta) in diff.deltas().enumerate() {
            let path = |file: git2::DiffFile<'_>| {
                file.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
            };
            let (status, file) = match delta.status() {
                Delta::Added => ("added", delta.new_file()),
                Delta::Deleted => ("removed", delta.old_file()),
                Delta::Renamed => ("renamed", delta.new_file()),
                Delta::Copied => ("copied", delta.new_file()),
                Delta::Typechange => ("changed", delta.new_file()),
                _ => ("modified", delta.new_file()),
            };
            let blob = file.id();
            let lines = git2::Patch::from_diff(&diff, index)?;
            let (_, additions, deletions) =
                lines.map(|patch| patch.line_stats()).transpose()?.unwrap_or_default();
            files.push(FileDiff {
                path: path(file),
                previous: (status == "renamed").then(|| path(delta.old_file())),
                status,
                blob,
                additions,
                deletions,
            });
        }
        Ok(files)
    }
}

/// An id that is written out.
pub fn full_id(text: &str) -> Option<Oid> {
    let is_id = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| Oid::from_str(text).ok()).flatten()
}

fn signature(by: &Person, at: Timestamp) -> Git<Signature<'static>> {
    Signature::new(&by.name, &by.email, &Time::new(at.as_second(), 0))
}
