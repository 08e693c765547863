//! What people do in projects.

use std::sync::{Arc, MutexGuard};

use git2::Oid;
use serde_json::json;
use workflows_standin_kit::git::{FileEdit, full_id};

use crate::{
    access::Access,
    answer::{Answer, Body},
    server::Shared,
    views::label_view,
    world::{Note, Project, World},
};

/// A project in somebody's hands. Each thing that is done changes the state and is told to hooks.
///
/// What cannot be done is a mistake in the test, and panics with what GitLab would answer.
#[derive(Debug, Clone)]
pub struct ProjectHandle {
    shared: Arc<Shared>,
    id: u64,
    actor: String,
}

/// A commit status as it is shown: the newest of its name in its pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownStatus {
    /// What it is called.
    pub name: String,
    /// `pending`, `running`, `success`, `failed`, `canceled`.
    pub state: String,
    /// What it says.
    pub description: String,
    /// Where it leads.
    pub target_url: Option<String>,
    /// Of its pipeline.
    pub reference: String,
    /// Its pipeline.
    pub pipeline: u64,
}

/// A note as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownNote {
    /// GitLab's number of it.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// What it says.
    pub body: String,
    /// Who reacted with what: `bot rocket`.
    pub emoji: Vec<String>,
}

/// A hook as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownHook {
    /// GitLab's number of it.
    pub id: u64,
    /// Where it goes.
    pub url: String,
    /// The events that it wants.
    pub events: Vec<String>,
    /// `executable`, `temporarily_disabled`, `disabled`.
    pub alert_status: String,
}

fn done<T>(result: Result<T, Answer>) -> T {
    result.unwrap_or_else(|refused| match refused.body {
        Body::Json(body) => panic!("GitLab refuses this: {} {body}", refused.status),
        _ => panic!("GitLab refuses this: {}", refused.status),
    })
}

fn git<T>(result: Result<T, git2::Error>) -> T {
    result.unwrap_or_else(|error| panic!("git refuses this: {error}"))
}

fn id_of(text: &str) -> Oid {
    full_id(text).unwrap_or_else(|| panic!("{text} is no commit id"))
}

fn texts(files: &[(&str, &str)]) -> Vec<FileEdit> {
    let edit = |(path, text): &(&str, &str)| FileEdit {
        path: (*path).to_owned(),
        content: Some((text.as_bytes().to_vec(), 0o100_644)),
    };
    files.iter().map(edit).collect()
}

impl ProjectHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id, actor: "root".to_owned() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    fn with<T>(&self, look: impl FnOnce(&World, &Project) -> T) -> T {
        let world = self.world();
        let project = world.projects.get(&self.id).unwrap_or_else(|| panic!("the project is gone"));
        look(&world, project)
    }

    /// The same project in the hands of somebody else, who is made when there is no such user.
    #[must_use]
    pub fn as_user(&self, name: &str) -> Self {
        self.world().ensure_user(name);
        Self { shared: Arc::clone(&self.shared), id: self.id, actor: name.to_owned() }
    }

    /// GitLab's number of it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `group/project`.
    pub fn path(&self) -> String {
        self.with(|_, project| project.path.clone())
    }

    /// Where a branch stands.
    pub fn branch(&self, branch: &str) -> Option<String> {
        self.with(|_, project| project.git.position(&format!("refs/heads/{branch}")))
            .map(|id| id.to_string())
    }

    fn put(&self, name: String, to: Option<Oid>) {
        git(self.world().push(self.id, &[(name, to)], &self.actor));
    }

    /// Puts some refs somewhere with one push; each is a full name and a commit, or none.
    pub fn push_refs(&self, refs: &[(&str, Option<&str>)]) {
        let moves: Vec<_> =
            refs.iter().map(|(name, to)| ((*name).to_owned(), to.map(id_of))).collect();
        git(self.world().push(self.id, &moves, &self.actor));
    }

    fn commit(&self, branch: &str, edits: &[FileEdit], message: &str) -> Oid {
        self.with(|world, project| {
            let at = |branch: &str| project.git.position(&format!("refs/heads/{branch}"));
            // A new branch begins at the default branch.
            let parent = at(branch).or_else(|| at(&project.default_branch));
            let parents: Vec<Oid> = parent.into_iter().collect();
            let person = world.person(&self.actor);
            git(project.git.write_commit(&parents, edits, message, &person, world.now()))
        })
    }

    fn push_edits(&self, branch: &str, edits: &[FileEdit], message: &str) -> String {
        let commit = self.commit(branch, edits, message);
        self.put(format!("refs/heads/{branch}"), Some(commit));
        commit.to_string()
    }

    /// Pushes a commit with these files (path and text) to a branch, which is made when it is not
    /// there. Returns the commit.
    pub fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let message = format!("Change {}", files.first().map_or("nothing", |(path, _)| path));
        self.push_edits(branch, &texts(files), &message)
    }

    /// Pushes a commit with a file of any bytes and mode.
    pub fn push_file(&self, branch: &str, path: &str, bytes: &[u8], mode: u32) -> String {
        let content = Some((bytes.to_vec(), mode));
        let edit = FileEdit { path: path.to_owned(), content };
        self.push_edits(branch, &[edit], &format!("Change {path}"))
    }

    /// Pushes a commit that deletes these files.
    pub fn push_deleting(&self, branch: &str, paths: &[&str]) -> String {
        let edits: Vec<FileEdit> =
            paths.iter().map(|path| FileEdit { path: (*path).to_owned(), content: None }).collect();
        self.push_edits(branch, &edits, "Delete files")
    }

    /// Writes a commit on top of another one without pushing it.
    pub fn write_commit(&self, parent: &str, files: &[(&str, &str)]) -> String {
        self.with(|world, project| {
            let person = world.person(&self.actor);
            let parents = [id_of(parent)];
            let now = world.now();
            git(project.git.write_commit(&parents, &texts(files), "Change files", &person, now))
        })
        .to_string()
    }

    /// Makes a branch at a commit, or moves it there, whatever it had before.
    pub fn force_push(&self, branch: &str, to: &str) {
        self.put(format!("refs/heads/{branch}"), Some(id_of(to)));
    }

    /// Deletes a branch. Merge requests from it are closed by that.
    pub fn delete_branch(&self, branch: &str) {
        self.put(format!("refs/heads/{branch}"), None);
    }

    /// Makes a tag at a commit, or moves it there.
    pub fn tag(&self, name: &str, at: &str) {
        self.put(format!("refs/tags/{name}"), Some(id_of(at)));
    }

    /// Makes an annotated tag, or moves it. Returns the id of the tag's object.
    pub fn annotated_tag(&self, name: &str, at: &str) -> String {
        let tag = self.with(|world, project| {
            let person = world.person(&self.actor);
            git(project.git.annotate(name, id_of(at), "A tag", &person, world.now()))
        });
        self.put(format!("refs/tags/{name}"), Some(tag));
        tag.to_string()
    }

    /// Deletes a tag.
    pub fn delete_tag(&self, name: &str) {
        self.put(format!("refs/tags/{name}"), None);
    }

    /// Forks it for whoever acts.
    #[must_use]
    pub fn fork(&self) -> Self {
        let id = git(self.world().fork(self.id, &self.actor));
        Self { shared: Arc::clone(&self.shared), id, actor: self.actor.clone() }
    }

    /// Opens a merge request from a branch to another; a draft when its title begins with `Draft:`.
    /// Returns its number.
    pub fn open(&self, title: &str, source: &str, target: &str) -> u64 {
        done(self.world().open(self.id, (self.id, source), target, title, &self.actor))
    }

    /// Opens a merge request from a branch of a fork.
    pub fn open_from(&self, fork: &Self, title: &str, source: &str, target: &str) -> u64 {
        done(self.world().open(self.id, (fork.id, source), target, title, &self.actor))
    }

    /// Closes a merge request.
    pub fn close(&self, iid: u64) {
        self.world().end(self.id, iid, "closed", &self.actor);
    }

    /// Opens a closed merge request again.
    pub fn reopen(&self, iid: u64) {
        done(self.world().reopen(self.id, iid, &self.actor));
    }

    /// Merges a merge request. Returns the merge commit.
    pub fn merge(&self, iid: u64) -> String {
        done(self.world().merge(self.id, iid, &self.actor)).to_string()
    }

    /// Lets a merge request aim at another branch.
    pub fn retarget(&self, iid: u64, target: &str) {
        let mut world = self.world();
        let change = |one: &mut crate::world::MergeRequest| {
            let previous = std::mem::replace(&mut one.target_branch, target.to_owned());
            json!({ "target_branch": { "previous": previous, "current": target } })
        };
        world.update(self.id, iid, change, &self.actor);
        let head = done(world.merge_request(self.id, iid)).head;
        git(world.set_head(self.id, iid, head));
    }

    /// Gives a merge request another title. It is a draft when that begins with `Draft:`.
    pub fn rename(&self, iid: u64, title: &str) {
        let change = |one: &mut crate::world::MergeRequest| {
            let previous = std::mem::replace(&mut one.title, title.to_owned());
            let draft = title.starts_with("Draft:");
            let was = std::mem::replace(&mut one.draft, draft);
            let mut changes = json!({ "title": { "previous": previous, "current": title } });
            if was != draft {
                changes["draft"] = json!({ "previous": was, "current": draft });
            }
            changes
        };
        self.world().update(self.id, iid, change, &self.actor);
    }

    /// Puts a label on, or takes it off.
    fn set_label(&self, iid: u64, label: &str, is_on: bool) {
        let change = |one: &mut crate::world::MergeRequest| {
            let view = |one: &crate::world::MergeRequest| -> Vec<_> {
                one.labels.iter().map(|label| label_view(label)).collect()
            };
            let previous = view(one);
            if is_on {
                one.labels.insert(label.to_owned());
            } else {
                one.labels.remove(label);
            }
            json!({ "labels": { "previous": previous, "current": view(one) } })
        };
        self.world().update(self.id, iid, change, &self.actor);
    }

    /// Puts a label on.
    pub fn label(&self, iid: u64, label: &str) {
        self.set_label(iid, label, true);
    }

    /// Takes a label off.
    pub fn unlabel(&self, iid: u64, label: &str) {
        self.set_label(iid, label, false);
    }

    /// Approves a merge request.
    pub fn approve(&self, iid: u64) {
        let mut world = self.world();
        let empty = || json!({});
        world.tell_merge_request(self.id, iid, "approved", empty(), empty(), &self.actor);
    }

    /// Writes a note on a merge request. Returns its number.
    pub fn note(&self, iid: u64, body: &str) -> u64 {
        done(self.world().note(self.id, iid, body, None, &self.actor))
    }

    /// Writes a note on a line of a merge request.
    pub fn note_on_line(&self, iid: u64, body: &str) -> u64 {
        done(self.world().note(self.id, iid, body, Some("DiffNote"), &self.actor))
    }

    /// Writes a note on a commit.
    pub fn note_on_commit(&self, commit: &str, body: &str) -> u64 {
        self.world().note_on_commit(self.id, id_of(commit), body, &self.actor)
    }

    /// Makes a release of a tag.
    pub fn release(&self, tag: &str) -> u64 {
        let mut world = self.world();
        let (id, now) = (world.new_id(), world.now());
        let Some(project) = world.projects.get(&self.id) else { panic!("the project is gone") };
        let commit = project.git.resolve(&format!("refs/tags/{tag}"));
        let commit = commit.unwrap_or_else(|| panic!("there is no tag {tag}"));
        let payload = json!({
            "id": id, "object_kind": "release", "action": "create", "name": tag, "tag": tag,
            "created_at": now, "released_at": now, "description": "",
            "project": world.project_hook_view(self.id),
            "commit": world.commit_hook_view(project, commit),
        });
        world.tell(self.id, "Release Hook", "releases_events", payload);
        id
    }

    /// Gives somebody a role, or takes it away.
    pub fn set_access(&self, name: &str, access: Option<Access>) {
        let mut world = self.world();
        world.ensure_user(name);
        let Some(project) = world.projects.get_mut(&self.id) else { return };
        match access {
            Some(access) => project.members.insert(name.to_owned(), access.level()),
            None => project.members.remove(name),
        };
    }

    /// Makes it private, or public.
    pub fn set_public(&self, is_public: bool) {
        if let Some(project) = self.world().projects.get_mut(&self.id) {
            project.is_public = is_public;
        }
    }

    /// Moves it to another path. The old one leads to it.
    pub fn move_to(&self, path: &str) {
        let mut world = self.world();
        if let Some((group, _)) = path.rsplit_once('/') {
            world.ensure_group(group);
        }
        world.paths.insert(path.to_lowercase(), self.id);
        if let Some(project) = world.projects.get_mut(&self.id) {
            project.path = path.to_owned();
        }
    }

    /// The statuses at a commit, oldest first; those that another of their name followed are left out.
    pub fn statuses(&self, commit: &str) -> Vec<ShownStatus> {
        let sha = id_of(commit);
        self.with(|_, project| {
            let pipelines = project.pipelines.values().filter(|one| one.sha == sha);
            pipelines
                .flat_map(|pipeline| {
                    pipeline.latest().map(|status| ShownStatus {
                        name: status.name.clone(),
                        state: status.state.to_owned(),
                        description: status.description.clone().unwrap_or_default(),
                        target_url: status.target_url.clone(),
                        reference: pipeline.reference.clone(),
                        pipeline: pipeline.id,
                    })
                })
                .collect()
        })
    }

    /// The notes on a merge request that people and programs wrote, oldest first.
    pub fn notes(&self, iid: u64) -> Vec<ShownNote> {
        self.with(|_, project| {
            let one = project.merge_requests.get(&iid);
            let one = one.unwrap_or_else(|| panic!("there is no merge request {iid}"));
            let shown = |note: &Note| ShownNote {
                id: note.id,
                author: note.author.clone(),
                body: note.body.clone(),
                emoji: note.emoji.iter().map(|(by, name)| format!("{by} {name}")).collect(),
            };
            one.notes.values().filter(|note| !note.system).map(shown).collect()
        })
    }

    /// Deletes a note.
    pub fn delete_note(&self, iid: u64, note: u64) {
        if let Some(one) = self.world().merge_request_mut(self.id, iid) {
            one.notes.remove(&note);
        }
    }

    /// Its hooks.
    pub fn hooks(&self) -> Vec<ShownHook> {
        self.with(|world, project| {
            let now = world.now();
            project
                .hooks
                .values()
                .map(|hook| ShownHook {
                    id: hook.id,
                    url: hook.url.clone(),
                    events: hook
                        .events
                        .iter()
                        .filter(|(_, wanted)| **wanted)
                        .map(|(event, _)| event.clone())
                        .collect(),
                    alert_status: hook.alert_status(now).to_owned(),
                })
                .collect()
        })
    }
}
