//! What the host holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::ScmCall;
use crate::{
    CommitId, Error, ErrorKind, Permission, RepoId, Result,
    event::PullRequest,
    hash_of,
    repo::{
        ChangedFile, CommitInfo, DeliveredPayload, FileChange, FoundComment, LoggedDelivery, Status,
    },
};

/// The files of a commit, by path.
pub(super) type Tree = BTreeMap<Arc<str>, Arc<str>>;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) repos: BTreeMap<String, Repo>,
    pub(super) calls: Vec<(ScmCall, String)>,
    pub(super) outage: Option<(ErrorKind, String)>,
    faults: BTreeMap<ScmCall, VecDeque<Fault>>,
    pub(super) credentials_until: Option<Timestamp>,
    /// Whether a status is refused only when who tells remembers nothing and looks first.
    pub(super) takes_older_statuses: bool,
    now: Timestamp,
    counter: u64,
}

#[derive(Debug)]
enum Fault {
    Fail { kind: ErrorKind, message: String },
    LoseAnswer,
}

#[derive(Debug)]
pub(super) struct Repo {
    pub(super) id: RepoId,
    pub(super) commits: BTreeMap<CommitId, Commit>,
    pub(super) refs: BTreeMap<Arc<str>, CommitId>,
    pub(super) default_branch: Arc<str>,
    pub(super) pull_requests: BTreeMap<u64, PullRequest>,
    pub(super) permissions: BTreeMap<Arc<str>, Permission>,
    pub(super) teams: BTreeSet<(String, String)>,
    /// Every status that was shown, per commit and context, oldest first.
    pub(super) statuses: BTreeMap<(CommitId, Arc<str>), Vec<Status>>,
    /// The comments on pull requests, oldest first.
    pub(super) comments: Vec<FoundComment>,
    /// The sticky comments, by pull request and marker.
    pub(super) sticky: BTreeMap<(u64, String), String>,
    /// The acknowledged comments, and whether each was accepted.
    pub(super) acknowledged: BTreeMap<String, bool>,
    pub(super) webhooks: BTreeMap<String, BTreeSet<String>>,
    pub(super) deliveries: Vec<(LoggedDelivery, DeliveredPayload)>,
}

#[derive(Debug)]
pub(super) struct Commit {
    pub(super) info: CommitInfo,
    pub(super) tree: Tree,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            repos: BTreeMap::new(),
            calls: Vec::new(),
            outage: None,
            faults: BTreeMap::new(),
            credentials_until: None,
            takes_older_statuses: false,
            now: Timestamp::UNIX_EPOCH,
            counter: 0,
        }
    }

    pub(super) fn create(&mut self, name: &str) {
        let id = RepoId::new(format!("r{}", self.repos.len() + 1));
        let before = self.repos.insert(
            name.to_owned(),
            Repo {
                id,
                commits: BTreeMap::new(),
                refs: BTreeMap::new(),
                default_branch: "refs/heads/main".into(),
                pull_requests: BTreeMap::new(),
                permissions: BTreeMap::new(),
                teams: BTreeSet::new(),
                statuses: BTreeMap::new(),
                comments: Vec::new(),
                sticky: BTreeMap::new(),
                acknowledged: BTreeMap::new(),
                webhooks: BTreeMap::new(),
                deliveries: Vec::new(),
            },
        );
        assert!(before.is_none(), "the repository {name} was created twice");
    }

    pub(super) fn fail_next(&mut self, call: ScmCall, kind: ErrorKind, message: String) {
        self.faults.entry(call).or_default().push_back(Fault::Fail { kind, message });
    }

    pub(super) fn lose_next_answer(&mut self, call: ScmCall) {
        self.faults.entry(call).or_default().push_back(Fault::LoseAnswer);
    }

    /// Records a call, and does it as far as no fault is in the way.
    pub(super) fn call<T>(
        &mut self,
        call: ScmCall,
        about: impl Into<String>,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.calls.push((call, about.into()));
        if let Some((kind, message)) = &self.outage {
            return Err(Error::new(*kind, format!("{call:?}"), message.clone()));
        }
        match self.faults.get_mut(&call).and_then(VecDeque::pop_front) {
            None => work(self),
            Some(Fault::Fail { kind, message }) => {
                Err(Error::new(kind, format!("{call:?}"), message))
            }
            Some(Fault::LoseAnswer) => {
                work(self)?;
                Err(Error::transient(format!("{call:?}"), "the answer was lost"))
            }
        }
    }

    pub(super) fn repo(&mut self, name: &str) -> Result<&mut Repo> {
        self.repos.get_mut(name).ok_or_else(|| {
            Error::not_found("find repository", "there is no such repository")
                .with("repository", name)
        })
    }

    /// The host's time: a second later with each change.
    pub(super) fn tick(&mut self) -> Timestamp {
        self.now = self.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(self.now);
        self.now
    }

    pub(super) fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// A number that was not given before.
    pub(super) fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

impl Repo {
    pub(super) fn commit(&self, id: &CommitId) -> Result<&Commit> {
        self.commits.get(id).ok_or_else(|| {
            Error::not_found("find commit", "there is no such commit").with("commit", id)
        })
    }

    pub(super) fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        self.commit(ancestor)?;
        let mut open = vec![descendant.clone()];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if id == *ancestor {
                return Ok(true);
            }
            if seen.insert(id.clone()) {
                open.extend(self.commit(&id)?.info.parents.iter().cloned());
            }
        }
        Ok(false)
    }

    pub(super) fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>> {
        let mut open = VecDeque::from([other.clone()]);
        while let Some(id) = open.pop_front() {
            if self.is_ancestor(&id, one)? {
                return Ok(Some(id));
            }
            open.extend(self.commit(&id)?.info.parents.iter().cloned());
        }
        Ok(None)
    }

    pub(super) fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> Result<Vec<ChangedFile>> {
        let empty = Tree::new();
        let before =
            from.map_or(Ok(&empty), |from| self.commit(from).map(|commit| &commit.tree))?;
        let after = &self.commit(to)?.tree;
        let paths: BTreeSet<&Arc<str>> = before.keys().chain(after.keys()).collect();
        let changed = paths.into_iter().filter_map(|path| {
            let change = match (before.get(path), after.get(path)) {
                (None, Some(_)) => FileChange::Added,
                (Some(_), None) => FileChange::Deleted,
                (Some(old), Some(new)) if old != new => FileChange::Modified,
                _ => return None,
            };
            Some(ChangedFile { path: Arc::clone(path), change })
        });
        Ok(changed.collect())
    }
}

/// The digest of what a directory holds, the same for the same content.
pub(super) fn tree_digest(tree: &Tree, prefix: &str) -> String {
    let mut parts = Vec::new();
    for (path, content) in tree.iter().filter(|(path, _)| path.starts_with(prefix)) {
        parts.push(&path[prefix.len()..]);
        parts.push(content);
    }
    hash_of(&parts)[..40].to_owned()
}
