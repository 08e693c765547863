//! What people do in repositories.

use std::sync::{Arc, MutexGuard};

use git2::Oid;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, Body},
    api::open_pull_request,
    deliveries::{Hook, Owner, Told},
    git::{FileEdit, full_id},
    server::Shared,
    world::{AccountKind, On, Repo, World},
};

/// What somebody may do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See it.
    Read,
    /// And sort issues and pull requests.
    Triage,
    /// And push.
    Write,
    /// And keep it.
    Maintain,
    /// And do everything.
    Admin,
}

impl Role {
    /// As `role_name` tells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Triage => "triage",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }

    /// As `permission` tells it, which knows fewer.
    pub(crate) fn permission(self) -> &'static str {
        match self {
            Self::Read | Self::Triage => "read",
            Self::Write | Self::Maintain => "write",
            Self::Admin => "admin",
        }
    }
}

/// A repository in somebody's hands. Each thing that is done changes the state and is told to hooks.
///
/// What cannot be done is a mistake in the test, and panics with what GitHub would answer.
#[derive(Debug, Clone)]
pub struct RepoHandle {
    shared: Arc<Shared>,
    id: u64,
    actor: String,
}

/// A check run as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownCheck {
    /// GitHub's number of it.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// The commit.
    pub head: String,
    /// What its App calls it.
    pub external_id: String,
    /// `queued`, `in_progress`, `completed`.
    pub status: String,
    /// Once it is completed.
    pub conclusion: Option<String>,
    /// Of its output.
    pub title: String,
    /// Of its output.
    pub summary: String,
    /// Of its output.
    pub text: String,
    /// The messages of its annotations.
    pub annotations: Vec<String>,
    /// The identifiers of its buttons.
    pub actions: Vec<String>,
    /// Where it leads.
    pub details_url: Option<String>,
}

/// A commit status as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownStatus {
    /// What it is called.
    pub context: String,
    /// `pending`, `success`, `failure`, `error`.
    pub state: String,
    /// What it says.
    pub description: String,
    /// Where it leads.
    pub target_url: Option<String>,
}

/// A comment as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownComment {
    /// GitHub's number of it.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// What it says.
    pub body: String,
    /// Who reacted with what: `bot +1`.
    pub reactions: Vec<String>,
}

fn done<T>(result: Result<T, Answer>) -> T {
    result.unwrap_or_else(|refused| match refused.body {
        Body::Json(body) => panic!("GitHub refuses this: {} {body}", refused.status),
        _ => panic!("GitHub refuses this: {}", refused.status),
    })
}

fn git<T>(result: Result<T, git2::Error>) -> T {
    result.unwrap_or_else(|error| panic!("git refuses this: {error}"))
}

/// Files of text.
fn texts(files: &[(&str, &str)]) -> Vec<FileEdit> {
    let edit = |(path, text): &(&str, &str)| FileEdit {
        path: (*path).to_owned(),
        content: Some((text.as_bytes().to_vec(), 0o100_644)),
    };
    files.iter().map(edit).collect()
}

fn id_of(text: &str) -> Oid {
    full_id(text).unwrap_or_else(|| panic!("{text} is no commit id"))
}

impl RepoHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id, actor: "octocat".to_owned() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    fn with<T>(&self, look: impl FnOnce(&World, &Repo) -> T) -> T {
        let world = self.world();
        let repo = world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
        look(&world, repo)
    }

    /// The same repository in the hands of somebody else, who is made when there is no such user.
    #[must_use]
    pub fn as_user(&self, login: &str) -> Self {
        self.world().ensure_account(login, AccountKind::User);
        Self { shared: Arc::clone(&self.shared), id: self.id, actor: login.to_owned() }
    }

    /// GitHub's number of it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `owner/name`.
    pub fn full_name(&self) -> String {
        self.with(|_, repo| repo.full_name())
    }

    /// Where its bare repository is on this machine.
    pub fn git_directory(&self) -> std::path::PathBuf {
        self.with(|_, repo| repo.git.path().to_owned())
    }

    /// Where a branch stands.
    pub fn branch(&self, branch: &str) -> Option<String> {
        self.with(|_, repo| repo.git.position(&format!("refs/heads/{branch}")))
            .map(|id| id.to_string())
    }

    fn commit_edits(&self, branch: &str, edits: &[FileEdit], message: &str) -> Oid {
        let world = self.world();
        let repo = world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
        let at = |branch: &str| repo.git.position(&format!("refs/heads/{branch}"));
        // A new branch begins at the default branch.
        let parent = at(branch).or_else(|| at(&repo.default_branch));
        let parents: Vec<Oid> = parent.into_iter().collect();
        let person = world.person(&self.actor);
        git(repo.git.write_commit(&parents, edits, message, &person, world.now()))
    }

    fn put(&self, name: &str, to: Option<Oid>) {
        git(self.world().move_ref(self.id, name, to, &self.actor));
    }

    /// Pushes a commit with these files (path and text) to a branch, which is made when it is not
    /// there. Returns the commit.
    pub fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let edits = texts(files);
        let message = format!("Change {}", files.first().map_or("nothing", |(path, _)| path));
        self.push_edits(branch, &edits, &message)
    }

    fn push_edits(&self, branch: &str, edits: &[FileEdit], message: &str) -> String {
        let commit = self.commit_edits(branch, edits, message);
        self.put(&format!("refs/heads/{branch}"), Some(commit));
        commit.to_string()
    }

    /// Pushes a commit with a file of any bytes and mode (`0o100644`, `0o100755`, and `0o120000` for
    /// a link).
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

    /// Pushes so many commits at once, each of which changes a file of its own. Returns the last.
    pub fn push_commits(&self, branch: &str, count: usize) -> String {
        let last = {
            let world = self.world();
            let repo =
                world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
            let at = |branch: &str| repo.git.position(&format!("refs/heads/{branch}"));
            let mut last = at(branch).or_else(|| at(&repo.default_branch));
            for number in 1..=count {
                let edit = FileEdit {
                    path: format!("commits/{number}.txt"),
                    content: Some((number.to_string().into_bytes(), 0o100_644)),
                };
                let parents: Vec<Oid> = last.into_iter().collect();
                let message = format!("Commit {number}");
                let (person, now) = (world.person(&self.actor), world.now());
                last = Some(git(repo.git.write_commit(&parents, &[edit], &message, &person, now)));
            }
            last.unwrap_or_else(|| panic!("no commits were asked for"))
        };
        self.put(&format!("refs/heads/{branch}"), Some(last));
        last.to_string()
    }

    /// Writes a commit on top of another one without pushing it.
    pub fn write_commit(&self, parent: &str, files: &[(&str, &str)]) -> String {
        let edits = texts(files);
        self.with(|world, repo| {
            let person = world.person(&self.actor);
            let parents = [id_of(parent)];
            git(repo.git.write_commit(&parents, &edits, "Change files", &person, world.now()))
        })
        .to_string()
    }

    /// Makes a branch at a commit, or moves it there, whatever it had before.
    pub fn force_push(&self, branch: &str, to: &str) {
        self.put(&format!("refs/heads/{branch}"), Some(id_of(to)));
    }

    /// Deletes a branch. Pull requests from it and to it are closed by that.
    pub fn delete_branch(&self, branch: &str) {
        self.put(&format!("refs/heads/{branch}"), None);
    }

    /// Makes a tag at a commit, or moves it there.
    pub fn tag(&self, name: &str, at: &str) {
        self.put(&format!("refs/tags/{name}"), Some(id_of(at)));
    }

    /// Puts several branches and tags at commits in one push, by their full names. Of more than three
    /// tags, and of more than 5,000 branches, nobody is told.
    pub fn push_refs(&self, refs: &[(&str, &str)]) {
        let moves: Vec<(&str, Option<Oid>)> =
            refs.iter().map(|(name, at)| (*name, Some(id_of(at)))).collect();
        git(self.world().move_refs(self.id, &moves, &self.actor));
    }

    /// Makes an annotated tag. Returns the id of the tag's object.
    pub fn annotated_tag(&self, name: &str, at: &str) -> String {
        let tag = self.with(|world, repo| {
            let person = world.person(&self.actor);
            git(repo.git.annotate(name, id_of(at), "A tag", &person, world.now()))
        });
        self.put(&format!("refs/tags/{name}"), Some(tag));
        tag.to_string()
    }

    /// Deletes a tag.
    pub fn delete_tag(&self, name: &str) {
        self.put(&format!("refs/tags/{name}"), None);
    }

    /// Forks it for whoever acts.
    #[must_use]
    pub fn fork(&self) -> Self {
        let id = git(self.world().fork(self.id, &self.actor));
        Self { shared: Arc::clone(&self.shared), id, actor: self.actor.clone() }
    }

    /// Opens a pull request from a branch, or from `owner:branch` of a fork, to a branch. Returns its
    /// number.
    pub fn open_pull_request(&self, title: &str, head: &str, base: &str) -> u64 {
        let mut world = self.world();
        done(open_pull_request(&mut world, self.id, &self.actor, head, base, title, None, false))
    }

    /// Opens a pull request that is a draft.
    pub fn open_draft(&self, title: &str, head: &str, base: &str) -> u64 {
        let mut world = self.world();
        done(open_pull_request(&mut world, self.id, &self.actor, head, base, title, None, true))
    }

    /// Opens an issue that is no pull request.
    pub fn open_issue(&self, title: &str) -> u64 {
        done(self.world().open_issue(self.id, title, None, None, &self.actor))
    }

    /// The head of a pull request.
    pub fn head_of(&self, number: u64) -> String {
        let world = self.world();
        let pull = world.pull(self.id, number);
        pull.unwrap_or_else(|| panic!("there is no pull request {number}")).head.to_string()
    }

    /// Closes a pull request.
    pub fn close(&self, number: u64) {
        self.world().close(self.id, number, &self.actor);
    }

    /// Opens a closed pull request again.
    pub fn reopen(&self, number: u64) {
        done(self.world().reopen(self.id, number, &self.actor));
    }

    /// Lets a pull request aim at another branch.
    pub fn retarget(&self, number: u64, base: &str) {
        done(self.world().retarget(self.id, number, base, &self.actor));
    }

    /// Gives a pull request another title.
    pub fn rename_pull_request(&self, number: u64, title: &str) {
        self.world().rename_issue(self.id, number, title, &self.actor);
    }

    /// Says that a draft is ready.
    pub fn mark_ready(&self, number: u64) {
        self.world().set_draft(self.id, number, false, &self.actor);
    }

    /// Makes a pull request a draft again.
    pub fn convert_to_draft(&self, number: u64) {
        self.world().set_draft(self.id, number, true, &self.actor);
    }

    /// Puts a label on.
    pub fn label(&self, number: u64, label: &str) {
        self.world().set_label(self.id, number, label, true, &self.actor);
    }

    /// Takes a label off.
    pub fn unlabel(&self, number: u64, label: &str) {
        self.world().set_label(self.id, number, label, false, &self.actor);
    }

    /// Merges a pull request. Returns the merge commit.
    pub fn merge(&self, number: u64) -> String {
        done(self.world().merge(self.id, number, &self.actor)).to_string()
    }

    /// Comments on an issue or pull request. Returns the comment's number.
    pub fn comment(&self, number: u64, body: &str) -> u64 {
        let mut world = self.world();
        let is_there = world.issue_mut(self.id, number).is_some();
        assert!(is_there, "there is no issue or pull request {number}");
        done(world.comment(self.id, On::Issue(number), body, &self.actor, None))
    }

    /// Comments on a line of a pull request.
    pub fn comment_on_line(&self, number: u64, path: &str, line: u64, body: &str) -> u64 {
        let commit = id_of(&self.head_of(number));
        let on = On::Line { number, path: path.to_owned(), line, commit, review: None };
        done(self.world().comment(self.id, on, body, &self.actor, None))
    }

    /// Comments on a commit.
    pub fn comment_on_commit(&self, commit: &str, body: &str) -> u64 {
        let on = On::Commit { commit: id_of(commit), path: None, line: None };
        done(self.world().comment(self.id, on, body, &self.actor, None))
    }

    /// Reviews a pull request; the state is `APPROVED`, `CHANGES_REQUESTED` or `COMMENTED`.
    pub fn review(&self, number: u64, state: &str, body: &str) -> u64 {
        done(self.world().review(self.id, number, state, body, &self.actor))
    }

    /// Gives somebody a role, or takes it away.
    pub fn set_role(&self, login: &str, role: Option<Role>) {
        self.world().set_role(self.id, login, role);
    }

    /// Gives somebody a role that the organisation made, built on one of GitHub's.
    pub fn set_custom_role(&self, login: &str, name: &str, built_on: Role) {
        let mut world = self.world();
        world.set_role(self.id, login, Some(built_on));
        let repo = world.repos.get_mut(&self.id);
        let one = repo.and_then(|repo| repo.collaborators.get_mut(&login.to_ascii_lowercase()));
        if let Some(one) = one {
            one.custom = Some(name.to_owned());
        }
    }

    /// Makes it private, or public.
    pub fn set_private(&self, private: bool) {
        if let Some(repo) = self.world().repos.get_mut(&self.id) {
            repo.private = private;
        }
    }

    /// Changes the default branch.
    pub fn set_default_branch(&self, branch: &str) {
        if let Some(repo) = self.world().repos.get_mut(&self.id) {
            repo.default_branch = branch.to_owned();
        }
    }

    /// Gives it another name, or another owner and name. The old one leads to it.
    pub fn rename(&self, full_name: &str) {
        let (owner, name) =
            full_name.split_once('/').unwrap_or_else(|| panic!("{full_name} is no owner/name"));
        let mut world = self.world();
        world.ensure_account(owner, AccountKind::Organization);
        world.names.insert(full_name.to_ascii_lowercase(), self.id);
        if let Some(repo) = world.repos.get_mut(&self.id) {
            repo.owner = owner.to_owned();
            repo.name = name.to_owned();
        }
    }

    /// Deletes it. Pull requests from it stay, without their head's repository.
    pub fn delete(&self) {
        let mut world = self.world();
        world.repos.remove(&self.id);
        let gone = self.id;
        world.names.retain(|_, id| *id != gone);
        for repo in world.repos.values_mut() {
            for pull in repo.issues.values_mut().filter_map(|issue| issue.pull.as_mut()) {
                if pull.head_repo == Some(gone) {
                    pull.head_repo = None;
                }
            }
        }
    }

    /// Adds a hook of the repository. Returns its number.
    pub fn add_hook(&self, url: &str, secret: &str, events: &[&str]) -> u64 {
        let mut world = self.world();
        let (id, now) = (world.new_id(), world.now());
        let hook = Hook {
            id,
            url: url.to_owned(),
            secret: Some(secret.to_owned()),
            content_type: "json".to_owned(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            active: true,
            created_at: now,
            updated_at: now,
            last: None,
        };
        if let Some(repo) = world.repos.get_mut(&self.id) {
            repo.hooks.insert(id, hook.clone());
        }
        world.ping(Owner::Repo(self.id), &hook, &self.actor);
        id
    }

    /// The addresses of its hooks.
    pub fn hooks(&self) -> Vec<String> {
        self.with(|_, repo| repo.hooks.values().map(|hook| hook.url.clone()).collect())
    }

    /// Publishes a release of a tag.
    pub fn release(&self, tag: &str) -> u64 {
        let mut world = self.world();
        let (id, now) = (world.new_id(), world.now());
        let repo = world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
        let at = |path: &str| world.repo_api(repo, &format!("/releases/{id}{path}"));
        let release = json!({
            "id": id, "node_id": crate::views::node_id("Release", id), "tag_name": tag,
            "target_commitish": repo.default_branch, "name": tag, "body": "", "draft": false,
            "prerelease": false, "immutable": false, "created_at": now, "published_at": now,
            "updated_at": now, "author": world.user_view(&self.actor), "assets": [],
            "url": at(""), "assets_url": at("/assets"), "upload_url": at("/assets{?name,label}"),
            "html_url": world.html(repo, &format!("/releases/tag/{tag}")),
            "tarball_url": world.repo_api(repo, &format!("/tarball/{tag}")),
            "zipball_url": world.repo_api(repo, &format!("/zipball/{tag}")),
        });
        self.tell(&mut world, "release", Some("published"), json!({ "release": release }));
        id
    }

    /// Sends an event of somebody's own (`repository_dispatch`).
    pub fn dispatch(&self, event_type: &str, payload: Value) {
        let mut world = self.world();
        let branch = world.repos.get(&self.id).map(|repo| repo.default_branch.clone());
        let payload = json!({ "branch": branch, "client_payload": payload });
        self.tell(&mut world, "repository_dispatch", Some(event_type), payload);
    }

    /// Asks the merge queue for checks of a group. Returns the commit.
    pub fn queue(&self, number: u64) -> String {
        let (base, base_ref, merged) = {
            let world = self.world();
            let pull = world.pull(self.id, number);
            let pull = pull.unwrap_or_else(|| panic!("there is no pull request {number}"));
            let merged = pull.merge_commit.unwrap_or_else(|| panic!("it cannot be merged"));
            (pull.base, pull.base_ref.clone(), merged)
        };
        let name = format!("refs/heads/gh-readonly-queue/{base_ref}/pr-{number}-{base}");
        self.put(&name, Some(merged));
        let mut world = self.world();
        let repo = world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
        let commit = world.pushed_commit_view(repo, merged);
        let simple = json!({
            "id": commit["id"], "tree_id": commit["tree_id"], "message": commit["message"],
            "timestamp": commit["timestamp"],
            "author": { "name": commit["author"]["name"], "email": commit["author"]["email"] },
            "committer": { "name": commit["committer"]["name"], "email": commit["committer"]["email"] },
        });
        let payload = json!({
            "merge_group": {
                "head_sha": merged.to_string(), "head_ref": name, "base_sha": base.to_string(),
                "base_ref": format!("refs/heads/{base_ref}"), "head_commit": simple,
            },
        });
        self.tell(&mut world, "merge_group", Some("checks_requested"), payload);
        merged.to_string()
    }

    fn tell(&self, world: &mut World, event: &'static str, action: Option<&str>, payload: Value) {
        world.tell(Told {
            event,
            action: action.map(ToOwned::to_owned),
            payload,
            sender: self.actor.clone(),
            repo: Some(self.id),
            app: None,
        });
    }

    /// Presses "Re-run" at a check.
    pub fn rerun_check(&self, check: u64) {
        self.at_check(check, "rerequested", json!({}));
    }

    /// Presses a button of a check.
    pub fn press(&self, check: u64, identifier: &str) {
        let is_there = self.with(|_, repo| {
            repo.checks.get(&check).is_some_and(|check| {
                check.actions.iter().any(|action| action["identifier"] == identifier)
            })
        });
        assert!(is_there, "check {check} has no button {identifier}");
        let more = json!({ "requested_action": { "identifier": identifier } });
        self.at_check(check, "requested_action", more);
    }

    fn at_check(&self, check: u64, action: &str, more: Value) {
        let mut world = self.world();
        let known = world.repos.get(&self.id).and_then(|repo| repo.checks.get(&check)).cloned();
        let known = known.unwrap_or_else(|| panic!("there is no check {check}"));
        world.tell_check(self.id, &known, action, more, &self.actor);
    }

    /// Presses "Re-run all checks" at a commit.
    pub fn rerun_all_checks(&self, commit: &str) {
        let mut world = self.world();
        let head = id_of(commit);
        let repo = world.repos.get(&self.id).unwrap_or_else(|| panic!("the repository is gone"));
        let suites: Vec<u64> =
            repo.suites.values().filter(|one| one.head == head).map(|one| one.id).collect();
        for suite in suites {
            world.tell_suite(self.id, suite, "rerequested", &self.actor, None);
        }
    }

    /// The check runs at a commit, oldest first.
    pub fn checks(&self, commit: &str) -> Vec<ShownCheck> {
        let head = id_of(commit);
        self.with(|_, repo| {
            let at = repo.checks.values().filter(|one| one.head == head);
            let all = |values: &[Value], field: &str| -> Vec<String> {
                let text = |one: &Value| one[field].as_str().unwrap_or_default().to_owned();
                values.iter().map(text).collect()
            };
            at.map(|one| ShownCheck {
                id: one.id,
                name: one.name.clone(),
                head: commit.to_owned(),
                external_id: one.external_id.clone(),
                status: one.status.clone(),
                conclusion: one.conclusion.clone(),
                title: one.title.clone().unwrap_or_default(),
                summary: one.summary.clone().unwrap_or_default(),
                text: one.text.clone().unwrap_or_default(),
                annotations: all(&one.annotations, "message"),
                actions: all(&one.actions, "identifier"),
                details_url: one.details_url.clone(),
            })
            .collect()
        })
    }

    /// The commit statuses at a commit, oldest first; of one context all that were set.
    pub fn statuses(&self, commit: &str) -> Vec<ShownStatus> {
        let sha = id_of(commit);
        self.with(|_, repo| {
            let at = repo.statuses.values().filter(|one| one.sha == sha);
            at.map(|one| ShownStatus {
                context: one.context.clone(),
                state: one.state.clone(),
                description: one.description.clone().unwrap_or_default(),
                target_url: one.target_url.clone(),
            })
            .collect()
        })
    }

    /// The comments on an issue or pull request, oldest first.
    pub fn comments(&self, number: u64) -> Vec<ShownComment> {
        self.with(|_, repo| {
            let on = |one: &&crate::world::Comment| matches!(one.on, On::Issue(n) if n == number);
            repo.comments
                .values()
                .filter(on)
                .map(|one| ShownComment {
                    id: one.id,
                    author: one.author.clone(),
                    body: one.body.clone(),
                    reactions: one
                        .reactions
                        .iter()
                        .map(|one| format!("{} {}", one.by, one.content))
                        .collect(),
                })
                .collect()
        })
    }
}
