//! A source-code host that nobody here has heard of, written against the public traits alone.
//!
//! It keeps snapshots rather than git objects, calls a change a *change set*, tells about it through
//! a feed of its own, and shows verdicts on a board. What it proves is that the traits are enough:
//! it drives the whole engine and passes the suite for drivers, without a patch to any crate.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Capabilities, Capability, CommitId, ConnectionName, Error, EventSource, Observation,
    RepoConnection, RepoRef, Result, ScmDriver, SourceName, SubjectClaim, Tenant,
    event::{Before, EventKind, Occurrence, RefClaim, Revision, Seen},
    hash_of,
    repo::{
        ChangedFile, CommitInfo, Directory, DirectoryEntry, EarlierReport, EntryKind, FileChange,
        History, ListOptions, ReadLimit, RefPosition, RepoLinks, ReportedStatus, Status,
        StatusReporter, StatusState,
    },
    source::SourceContext,
};

type Files = BTreeMap<Arc<str>, Bytes>;

/// The whole host.
#[derive(Debug, Clone)]
pub struct PrivateScm {
    host: Arc<Mutex<Host>>,
    feed: broadcast::Sender<FeedEntry>,
    board_changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Host {
    projects: BTreeMap<String, Project>,
}

#[derive(Debug, Default)]
struct Project {
    snapshots: BTreeMap<CommitId, Snapshot>,
    marks: BTreeMap<Arc<str>, CommitId>,
    board: BTreeMap<(CommitId, Arc<str>), Vec<Status>>,
}

#[derive(Debug, Clone)]
struct Snapshot {
    files: Files,
    parent: Option<CommitId>,
    title: Arc<str>,
    made_at: Timestamp,
}

#[derive(Debug, Clone)]
enum FeedEntry {
    Moved { project: String, mark: Arc<str>, before: Option<CommitId>, after: Option<CommitId> },
    ChangeSet { project: String, id: u64, at: CommitId, mark: Arc<str> },
}

impl Default for PrivateScm {
    fn default() -> Self {
        Self {
            host: Arc::default(),
            feed: broadcast::channel(1024).0,
            board_changes: watch::Sender::default(),
        }
    }
}

impl PrivateScm {
    /// The kind of event that only this host has.
    pub const CHANGE_SET: &'static str = "change_set";

    fn with<T>(&self, use_host: impl FnOnce(&mut Host) -> T) -> T {
        use_host(&mut self.host.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a project whose first snapshot holds these files.
    pub fn create(&self, project: &str, files: &[(&str, &str)]) -> CommitId {
        self.with(|host| host.projects.insert(project.to_owned(), Project::default()));
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        self.save(project, "main", &files)
    }

    /// Saves a snapshot on a branch, which begins at `main` when it is not there, and tells the feed.
    pub fn save(&self, project: &str, branch: &str, files: &[(&str, Option<&str>)]) -> CommitId {
        let mark: Arc<str> = format!("refs/heads/{branch}").into();
        let (before, after) = self.with(|host| {
            let project = host.projects.get_mut(project).expect("the project was created");
            let before = project.marks.get(&mark).cloned();
            let parent = before.clone().or_else(|| project.marks.get("refs/heads/main").cloned());
            let mut tree = parent
                .as_ref()
                .map(|parent| project.snapshots[parent].files.clone())
                .unwrap_or_default();
            for (path, text) in files {
                match text {
                    Some(text) => tree.insert((*path).into(), Bytes::from((*text).to_owned())),
                    None => tree.remove(*path),
                };
            }
            let title: Arc<str> = format!("Snapshot {}", project.snapshots.len() + 1).into();
            let after = id_of(&tree, parent.as_ref(), &title);
            let made_at = Timestamp::from_second(project.snapshots.len() as i64).expect("small");
            project
                .snapshots
                .insert(after.clone(), Snapshot { files: tree, parent, title, made_at });
            project.marks.insert(Arc::clone(&mark), after.clone());
            (before, after)
        });
        self.tell(FeedEntry::Moved {
            project: project.to_owned(),
            mark,
            before,
            after: Some(after.clone()),
        });
        after
    }

    /// Marks the newest snapshot of a branch.
    pub fn mark(&self, project: &str, tag: &str, branch: &str) {
        self.with(|host| {
            let project = host.projects.get_mut(project).expect("the project was created");
            let at = project.marks[&*format!("refs/heads/{branch}")].clone();
            project.marks.insert(format!("refs/tags/{tag}").into(), at);
        });
    }

    /// Moves a branch to a snapshot.
    pub fn move_branch(&self, project: &str, branch: &str, to: &CommitId) {
        self.set_branch(project, branch, Some(to.clone()));
    }

    /// Removes a branch.
    pub fn delete_branch(&self, project: &str, branch: &str) {
        self.set_branch(project, branch, None);
    }

    fn set_branch(&self, project: &str, branch: &str, to: Option<CommitId>) {
        let mark: Arc<str> = format!("refs/heads/{branch}").into();
        let before = self.with(|host| {
            let marks = &mut host.projects.get_mut(project).expect("created").marks;
            match &to {
                Some(to) => marks.insert(Arc::clone(&mark), to.clone()),
                None => marks.remove(&mark),
            }
        });
        self.tell(FeedEntry::Moved { project: project.to_owned(), mark, before, after: to });
    }

    /// Offers the newest snapshot of a branch as a change set.
    pub fn offer(&self, project: &str, id: u64, branch: &str) {
        let mark: Arc<str> = format!("refs/heads/{branch}").into();
        let at = self.with(|host| host.projects[project].marks[&mark].clone());
        self.tell(FeedEntry::ChangeSet { project: project.to_owned(), id, at, mark });
    }

    /// What the board has shown for a snapshot under a name, oldest first.
    pub fn board(&self, project: &str, at: &CommitId, context: &str) -> Vec<Status> {
        let key = (at.clone(), context.into());
        self.with(|host| host.projects[project].board.get(&key).cloned()).unwrap_or_default()
    }

    /// Returns when the board shows this state for a snapshot under a name.
    pub async fn until_board_shows(
        &self,
        project: &str,
        at: &CommitId,
        context: &str,
        state: StatusState,
    ) {
        let mut changes = self.board_changes.subscribe();
        let shows = || self.board(project, at, context).last().map(|status| status.state);
        // The sender lives in `self`, so waiting ends only with the condition.
        let _ = changes.wait_for(|()| shows() == Some(state)).await;
    }

    fn tell(&self, entry: FeedEntry) {
        // Nobody may be listening; a feed is a hint.
        let _ = self.feed.send(entry);
    }

    /// The feed as an event source for a connection under which this host is known.
    pub fn feed(&self, tenant: Tenant, connection: ConnectionName) -> Feed {
        Feed {
            scm: self.clone(),
            entries: Mutex::new(Some(self.feed.subscribe())),
            tenant,
            connection,
        }
    }
}

fn id_of(files: &Files, parent: Option<&CommitId>, title: &str) -> CommitId {
    let mut parts = vec![parent.map_or("", CommitId::as_str).to_owned(), title.to_owned()];
    for (path, bytes) in files {
        parts.push(path.to_string());
        parts.push(String::from_utf8_lossy(bytes).into_owned());
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    hash_of(&parts).parse().expect("a hash has 64 digits")
}

#[async_trait]
impl ScmDriver for PrivateScm {
    fn host(&self) -> &str {
        "private"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of([Capability::StatusReporter, Capability::History])
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        if !self.with(|host| host.projects.contains_key(repo)) {
            return Err(Error::not_found("connect", "there is no such project").with("repo", repo));
        }
        let repo = RepoRef { connection: connection.clone(), id: repo.into(), name: repo.into() };
        Ok(Arc::new(ProjectConnection { scm: self.clone(), repo }))
    }
}

#[derive(Debug)]
struct ProjectConnection {
    scm: PrivateScm,
    repo: RepoRef,
}

impl ProjectConnection {
    fn with<T>(&self, use_project: impl FnOnce(&mut Project) -> T) -> T {
        self.scm
            .with(|host| use_project(host.projects.entry(self.repo.name.to_string()).or_default()))
    }

    fn snapshot(&self, commit: &CommitId) -> Result<Snapshot> {
        self.with(|project| project.snapshots.get(commit).cloned()).ok_or_else(|| {
            Error::not_found("read snapshot", "there is no such snapshot").with("commit", commit)
        })
    }
}

#[async_trait]
impl RepoConnection for ProjectConnection {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        RepoLinks::clone_from(format!("private://{}", self.repo.name))
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        Ok("refs/heads/main".into())
    }

    async fn resolve(&self, reference: &str) -> Result<CommitId> {
        let found = self.with(|project| {
            let as_commit = reference.parse::<CommitId>().ok();
            project
                .marks
                .get(reference)
                .cloned()
                .or(as_commit.filter(|commit| project.snapshots.contains_key(commit)))
        });
        found.ok_or_else(|| {
            Error::not_found("resolve", "there is no such mark").with("ref", reference)
        })
    }

    fn refs(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        let positions: Vec<_> = self.with(|project| {
            let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(&**prefix));
            let marks = project.marks.iter().filter(|(name, _)| wanted(name));
            marks
                .map(|(name, commit)| {
                    Ok(RefPosition { name: Arc::clone(name), commit: commit.clone() })
                })
                .collect()
        });
        stream::iter(positions).boxed()
    }

    async fn read_file(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        let files = self.snapshot(commit)?.files;
        let context = |error: Error| error.with("path", path).with("commit", commit.short());
        match files.get(path) {
            Some(bytes) if bytes.len() > limit.max_bytes => {
                Err(context(Error::invalid("read file", "it is larger than allowed")))
            }
            Some(bytes) => Ok(bytes.clone()),
            None if files.keys().any(|name| name.starts_with(&format!("{path}/"))) => {
                Err(context(Error::invalid("read file", "it is a directory")))
            }
            None => Err(context(Error::not_found("read file", "there is no such file"))),
        }
    }

    async fn list_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        let files = self.snapshot(commit)?.files;
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries = BTreeMap::new();
        let mut content = Vec::new();
        for (name, bytes) in &files {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            content.extend([rest.to_owned(), String::from_utf8_lossy(bytes).into_owned()]);
            let (entry, kind) = match rest.split_once('/') {
                Some((directory, _)) if !options.recursive => (directory, EntryKind::Directory),
                _ => (rest, EntryKind::File),
            };
            entries.insert(entry.to_owned(), kind);
        }
        if entries.len() > options.max_entries {
            return Err(Error::invalid("list directory", "it has more entries than allowed"));
        }
        if entries.is_empty() {
            return Ok(Directory::default());
        }
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let entry =
            |(path, kind): (String, _)| DirectoryEntry { path: path.into(), kind, digest: None };
        let entries = entries.into_iter().map(entry).collect();
        Ok(Directory::new(Some(hash_of(&content).into()), entries))
    }

    fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        let old = from.map(|commit| self.snapshot(commit)).transpose();
        let (old, new) = match (old, self.snapshot(to)) {
            (Ok(old), Ok(new)) => (old.map(|old| old.files).unwrap_or_default(), new.files),
            (Err(error), _) | (_, Err(error)) => return stream::iter([Err(error)]).boxed(),
        };
        let mut changes = Vec::new();
        for (path, bytes) in &new {
            let change = match old.get(path) {
                None => FileChange::Added,
                Some(before) if before != bytes => FileChange::Modified,
                Some(_) => continue,
            };
            changes.push(Ok(ChangedFile { path: Arc::clone(path), change }));
        }
        let gone = old.keys().filter(|path| !new.contains_key(*path));
        changes.extend(
            gone.map(|path| {
                Ok(ChangedFile { path: Arc::clone(path), change: FileChange::Deleted })
            }),
        );
        stream::iter(changes).boxed()
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        Some(self)
    }
}

#[async_trait]
impl History for ProjectConnection {
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        let snapshot = self.snapshot(id)?;
        Ok(CommitInfo {
            id: id.clone(),
            title: snapshot.title,
            author: "somebody".into(),
            committed_at: snapshot.made_at,
            parents: snapshot.parent.into_iter().collect(),
        })
    }

    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        self.snapshot(ancestor)?;
        let mut at = Some(descendant.clone());
        while let Some(commit) = at {
            if commit == *ancestor {
                return Ok(true);
            }
            at = self.snapshot(&commit)?.parent;
        }
        Ok(false)
    }

    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>> {
        let mut at = Some(self.resolve(reference).await?);
        while let Some(commit) = at {
            let snapshot = self.snapshot(&commit)?;
            if snapshot.made_at <= instant {
                return Ok(Some(commit));
            }
            at = snapshot.parent;
        }
        Ok(None)
    }
}

#[async_trait]
impl StatusReporter for ProjectConnection {
    async fn report(&self, status: &Status, _earlier: EarlierReport<'_>) -> Result<ReportedStatus> {
        let key = (status.commit.clone(), Arc::clone(&status.context));
        self.with(|project| project.board.entry(key).or_default().push(status.clone()));
        self.scm.board_changes.send_modify(|()| {});
        Ok(ReportedStatus { id: status.context.to_string(), link: None })
    }
}

/// The host's feed.
#[derive(Debug)]
pub struct Feed {
    scm: PrivateScm,
    entries: Mutex<Option<broadcast::Receiver<FeedEntry>>>,
    tenant: Tenant,
    connection: ConnectionName,
}

impl Feed {
    fn observe(&self, number: u64, entry: FeedEntry) -> Observation {
        let (project, claim) = match entry {
            FeedEntry::Moved { project, mark, before, after } => {
                let before = Before::Was(before);
                (project, SubjectClaim::Ref(RefClaim { name: mark, after, before, forced: None }))
            }
            FeedEntry::ChangeSet { project, id, at, mark } => {
                let kind = EventKind::new(PrivateScm::CHANGE_SET);
                let mut occurrence = Occurrence::new(kind, id.to_string());
                occurrence.actions = vec!["offered".into()];
                occurrence.head = Some(Revision::new(at, mark));
                occurrence.data.insert("id".to_owned(), id.into());
                (project, SubjectClaim::Occurrence(Box::new(occurrence)))
            }
        };
        let repo = RepoRef {
            connection: self.connection.clone(),
            id: project.as_str().into(),
            name: project.into(),
        };
        let delivery = format!("feed-{number}");
        Observation::new(self.tenant.clone(), repo, self.name(), delivery.into(), Seen::Told, claim)
    }
}

#[async_trait]
impl EventSource for Feed {
    fn name(&self) -> SourceName {
        "private-feed".into()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let taken = self.entries.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut entries = taken.unwrap_or_else(|| self.scm.feed.subscribe());
        let mut number = 0;
        loop {
            let entry = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                entry = entries.recv() => entry,
            };
            let Ok(entry) = entry else { return Ok(()) };
            number += 1;
            context.publisher.publish(vec![self.observe(number, entry)]).await?;
            context.succeeded("feed");
        }
    }
}
