//! Reading commits, trees and files out of an open repository. Everything here blocks.
//!
//! The cache of a remote holds part of the objects: whatever is not there is named, so that it can
//! be fetched and the reading begun again.

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use git2::{Commit, ErrorCode, ObjectType, Oid, Repository, Tree};
use jiff::Timestamp;
use workflows_core::{
    CommitId, Error, Result,
    repo::{
        ChangedFile, CommitInfo, Directory, DirectoryEntry, EntryKind, FileChange, ListOptions,
        ReadLimit,
    },
};

/// An object that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Absent {
    Commit(Oid),
    Tree { of: Oid, tree: Oid },
    File(Oid),
}

/// Why something was not read.
#[derive(Debug)]
pub(super) enum Failure {
    /// An object is not there.
    Absent(Absent),
    /// The repository cannot be read.
    Damaged(git2::Error),
    /// The answer is an error.
    Answer(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

pub(super) type Read<T> = Result<T, Failure>;

fn or_absent<T>(found: Result<T, git2::Error>, absent: Absent) -> Read<T> {
    found.map_err(|error| match error.code() {
        ErrorCode::NotFound => Failure::Absent(absent),
        _ => Failure::Damaged(error),
    })
}

/// The name of a commit as git2 has it.
pub(super) fn oid_of(commit: &CommitId) -> Result<Oid> {
    if commit.as_str().len() != 40 {
        return Err(Error::unsupported(
            "read a commit",
            "this is a SHA-256 name; only repositories with SHA-1 names can be read",
        )
        .with("commit", commit));
    }
    Oid::from_str(commit.as_str()).map_err(|error| {
        Error::invalid("read a commit", "this names no object")
            .with("commit", commit)
            .caused_by(error)
    })
}

/// The other way round.
pub(super) fn commit_id(oid: Oid) -> Result<CommitId> {
    oid.to_string().parse()
}

fn find_commit(repository: &Repository, id: Oid) -> Read<Commit<'_>> {
    or_absent(repository.find_commit(id), Absent::Commit(id))
}

fn find_tree(repository: &Repository, of: Oid, tree: Oid) -> Read<Tree<'_>> {
    or_absent(repository.find_tree(tree), Absent::Tree { of, tree })
}

/// Fails when a commit is not there.
pub(super) fn has_commit(repository: &Repository, id: Oid) -> Read<()> {
    find_commit(repository, id).map(|_| ())
}

/// What lies in a tree under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    id: Oid,
    mode: i32,
}

impl Entry {
    fn of(entry: &git2::TreeEntry<'_>) -> Self {
        Self { id: entry.id(), mode: entry.filemode() }
    }

    fn kind(self) -> EntryKind {
        match self.mode {
            0o040_000 => EntryKind::Directory,
            0o120_000 => EntryKind::Link,
            0o160_000 => EntryKind::Submodule,
            _ => EntryKind::File,
        }
    }

    fn as_directory(self) -> Option<Oid> {
        (self.kind() == EntryKind::Directory).then_some(self.id)
    }
}

/// The parts of a path within a repository; none for the root.
pub(super) fn parts_of<'a>(operation: &'static str, path: &'a str) -> Result<Vec<&'a str>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
    if path.contains('\0') || parts.iter().any(|part| ["", ".", ".."].contains(part)) {
        return Err(Error::invalid(
            operation,
            "a path in a repository is relative to its root, without '.', '..' or empty parts",
        )
        .with("path", format!("{path:?}")));
    }
    Ok(parts)
}

fn entry_at(repository: &Repository, commit: Oid, parts: &[&str]) -> Read<Option<Entry>> {
    let mut at = Entry { id: find_commit(repository, commit)?.tree_id(), mode: 0o040_000 };
    for part in parts {
        let Some(tree) = at.as_directory() else {
            return Ok(None);
        };
        let tree = find_tree(repository, commit, tree)?;
        match tree.get_name_bytes(part.as_bytes()) {
            Some(entry) => at = Entry::of(&entry),
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// The content of a file.
pub(super) fn file(
    repository: &Repository,
    commit: Oid,
    path: &str,
    limit: ReadLimit,
) -> Read<Bytes> {
    const OPERATION: &str = "read file";
    let context = |error: Error| error.with("path", format!("{path:?}")).with("commit", commit);
    let parts = parts_of(OPERATION, path)?;
    let Some(entry) = entry_at(repository, commit, &parts)? else {
        let error = Error::not_found(OPERATION, "there is no such file at that commit");
        return Err(context(error).into());
    };
    if entry.kind() != EntryKind::File {
        let what = match entry.kind() {
            EntryKind::Directory => "a directory",
            EntryKind::Submodule => "a submodule",
            _ => "a symbolic link, and links are not followed",
        };
        let error = Error::invalid(OPERATION, format!("this is not a file, but {what}"));
        return Err(context(error).into());
    }
    let absent = Absent::File(entry.id);
    let odb = repository.odb().map_err(Failure::Damaged)?;
    let (size, kind) = or_absent(odb.read_header(entry.id), absent)?;
    if size > limit.max_bytes {
        let error = Error::invalid(
            OPERATION,
            format!("the file has {size} bytes, more than the {} allowed", limit.max_bytes),
        );
        return Err(context(error).into());
    }
    if kind != ObjectType::Blob {
        let error = Error::invalid(OPERATION, "the tree names something that is not a file");
        return Err(context(error).into());
    }
    let content = or_absent(odb.read(entry.id), absent)?;
    Ok(Bytes::copy_from_slice(content.data()))
}

/// What is in a directory.
pub(super) fn directory(
    repository: &Repository,
    commit: Oid,
    path: &str,
    options: ListOptions,
) -> Read<Directory> {
    const OPERATION: &str = "list directory";
    const DEEPEST: usize = 256;
    let parts = parts_of(OPERATION, path)?;
    let top = entry_at(repository, commit, &parts)?.and_then(Entry::as_directory);
    let Some(top) = top else {
        return Ok(Directory::default());
    };
    let mut entries = Vec::new();
    let mut open = vec![(String::new(), top, 0_usize)];
    while let Some((prefix, tree, depth)) = open.pop() {
        let tree = find_tree(repository, commit, tree)?;
        for entry in tree.iter() {
            if entries.len() >= options.max_entries || depth > DEEPEST {
                let error = Error::invalid(
                    OPERATION,
                    format!(
                        "the directory has more than {} entries or {DEEPEST} levels",
                        options.max_entries
                    ),
                );
                return Err(error.with("path", format!("{path:?}")).with("commit", commit).into());
            }
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = format!("{prefix}{name}");
            let entry = Entry::of(&entry);
            if let (Some(tree), true) = (entry.as_directory(), options.recursive) {
                open.push((format!("{path}/"), tree, depth + 1));
            }
            let digest = Some(entry.id.to_string().into());
            entries.push(DirectoryEntry { path: path.into(), kind: entry.kind(), digest });
        }
    }
    Ok(Directory::new(Some(top.to_string().into()), entries))
}

/// The files that differ between two commits, ordered by path. At most `most` entries are looked
/// at: a small tree can name itself over and over.
pub(super) fn changed_files(
    repository: &Repository,
    from: Option<Oid>,
    to: Oid,
    most: usize,
) -> Read<Vec<ChangedFile>> {
    const OPERATION: &str = "find changed files";
    let new = find_commit(repository, to)?.tree_id();
    let old = match from {
        Some(from) => Some((from, find_commit(repository, from)?.tree_id())),
        None => None,
    };
    let mut changed = Vec::new();
    let mut looked_at = 0_usize;
    let mut open = vec![(String::new(), old.map(|(_, tree)| tree), Some(new))];
    while let Some((prefix, old_tree, new_tree)) = open.pop() {
        if old_tree == new_tree {
            continue;
        }
        let mut names: BTreeMap<Vec<u8>, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        if let (Some(tree), Some((from, _))) = (old_tree, old) {
            for entry in find_tree(repository, from, tree)?.iter() {
                names.entry(entry.name_bytes().to_vec()).or_default().0 = Some(Entry::of(&entry));
            }
        }
        if let Some(tree) = new_tree {
            for entry in find_tree(repository, to, tree)?.iter() {
                names.entry(entry.name_bytes().to_vec()).or_default().1 = Some(Entry::of(&entry));
            }
        }
        looked_at += names.len();
        if looked_at > most {
            let error = Error::invalid(
                OPERATION,
                format!("more than {most} entries would have to be looked at"),
            );
            return Err(error.with("to", to).into());
        }
        for (name, (before, after)) in names {
            if before == after {
                continue;
            }
            let path = format!("{prefix}{}", String::from_utf8_lossy(&name));
            let trees = (before.and_then(Entry::as_directory), after.and_then(Entry::as_directory));
            if trees != (None, None) {
                open.push((format!("{path}/"), trees.0, trees.1));
            }
            let is_file = |entry: &Entry| entry.as_directory().is_none();
            let change = match (before.filter(is_file), after.filter(is_file)) {
                (None, Some(_)) => FileChange::Added,
                (Some(_), None) => FileChange::Deleted,
                (Some(_), Some(_)) => FileChange::Modified,
                (None, None) => continue,
            };
            changed.push(ChangedFile { path: path.into(), change });
        }
    }
    changed.sort();
    Ok(changed)
}

/// What a commit says about itself.
pub(super) fn commit(repository: &Repository, id: Oid) -> Read<CommitInfo> {
    let commit = find_commit(repository, id)?;
    let parents = commit.parent_ids().map(commit_id).collect::<Result<Vec<_>>>()?;
    let title = commit.message_bytes().split(|byte| *byte == b'\n').find(|line| !line.is_empty());
    let text = |bytes: &[u8]| -> Arc<str> { String::from_utf8_lossy(bytes).trim().into() };
    Ok(CommitInfo {
        id: commit_id(id)?,
        title: text(title.unwrap_or_default()),
        author: text(commit.author().name_bytes()),
        committed_at: date_of(&commit),
        parents,
    })
}

/// The committer date; one that no calendar has becomes the nearest that it has.
fn date_of(commit: &Commit<'_>) -> Timestamp {
    let seconds = commit.time().seconds();
    let nearest = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(nearest)
}

/// What is known about the descent of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descent {
    /// The ancestor was found.
    Found,
    /// All that is there was looked at, and all of the history is there.
    NotFound,
    /// Some commit of the history is not there.
    Unknown,
}

/// Looks for `ancestor` in the history of `descendant`, over at most `most` commits.
pub(super) fn descent(
    repository: &Repository,
    ancestor: Oid,
    descendant: Oid,
    most: usize,
) -> Read<Descent> {
    let mut seen = HashSet::from([descendant]);
    let mut open = VecDeque::from([descendant]);
    let mut whole = !repository.is_shallow();
    while let Some(id) = open.pop_front() {
        if id == ancestor {
            return Ok(Descent::Found);
        }
        if seen.len() > most {
            return Err(too_long("compare commits", most).into());
        }
        match find_commit(repository, id) {
            Ok(commit) => open.extend(commit.parent_ids().filter(|parent| seen.insert(*parent))),
            Err(Failure::Absent(_)) => whole = false,
            Err(failure) => return Err(failure),
        }
    }
    Ok(if whole { Descent::NotFound } else { Descent::Unknown })
}

/// The best common ancestor of two commits, over at most `most` commits: of several the newest. As git
/// finds it: newest first, until all that is left is before a common ancestor that was found.
pub(super) fn merge_base(
    repository: &Repository,
    one: Oid,
    other: Oid,
    most: usize,
) -> Read<Option<Oid>> {
    const OF_ONE: u8 = 1;
    const OF_OTHER: u8 = 2;
    const OF_BOTH: u8 = OF_ONE | OF_OTHER;
    const BEFORE_A_BASE: u8 = 4;
    let mut marks = HashMap::from([(one, OF_ONE)]);
    *marks.entry(other).or_default() |= OF_OTHER;
    let mut open = BinaryHeap::new();
    for id in [one, other] {
        open.push((find_commit(repository, id)?.time().seconds(), id));
    }
    let mut found = Vec::new();
    let settled = |marks: &HashMap<Oid, u8>, id: &Oid| marks[id] & BEFORE_A_BASE != 0;
    while !open.iter().all(|(_, id)| settled(&marks, id)) {
        let Some((time, id)) = open.pop() else { break };
        if marks.len() > most {
            return Err(too_long("find where commits parted", most).into());
        }
        let mut mark = marks[&id];
        if mark & (OF_BOTH | BEFORE_A_BASE) == OF_BOTH {
            found.push((time, id));
            mark |= BEFORE_A_BASE;
        }
        for parent in find_commit(repository, id)?.parent_ids() {
            let known = marks.entry(parent).or_default();
            if *known & mark != mark {
                *known |= mark;
                open.push((find_commit(repository, parent)?.time().seconds(), parent));
            }
        }
    }
    found.retain(|(_, id)| !settled(&marks, id));
    Ok(found.into_iter().max().map(|(_, id)| id))
}

/// The newest commit on the first-parent line at or before an instant, over at most `most` commits.
pub(super) fn first_parent_as_of(
    repository: &Repository,
    tip: Oid,
    instant: Timestamp,
    most: usize,
) -> Read<Option<Oid>> {
    let mut at = tip;
    for _ in 0..most {
        let commit = find_commit(repository, at)?;
        if date_of(&commit) <= instant {
            return Ok(Some(at));
        }
        match commit.parent_ids().next() {
            Some(parent) => at = parent,
            None if repository.is_shallow() => return Err(Failure::Absent(Absent::Commit(at))),
            None => return Ok(None),
        }
    }
    Err(too_long("find a commit by date", most).into())
}

fn too_long(operation: &'static str, most: usize) -> Error {
    Error::invalid(operation, format!("more than {most} commits would have to be looked at"))
}
