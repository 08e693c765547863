//! What a test makes happen at a repository, and what it sees there.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    ScriptedScm,
    host::{Commit, Host, Repo, Tree, tree_digest},
};
use crate::{
    CommitId, Observation, Permission, RepoRef, SubjectClaim,
    event::{
        Before, Comment, LabelClaim, Lacks, Occurrence, Payload, PullRequest, PullRequestClaim,
        PullRequestState, RefClaim, Revision, Seen,
    },
    hash_of,
    repo::{CommitInfo, DeliveredPayload, FoundComment, LoggedDelivery, Status},
};

/// One repository of a [`ScriptedScm`], as the test's people act on it.
///
/// What happens is returned as the observation that the host's webhook would make; a test that
/// wants it lost drops it. Files are given as paths and contents, and are laid over those of the
/// commit before; an empty content removes the file.
///
/// # Panics
///
/// Every method panics when the test's assumption is wrong: there is no such branch, pull request
/// or commit.
#[derive(Debug, Clone)]
pub struct ScriptedRepo {
    scm: ScriptedScm,
    name: String,
}

impl ScriptedRepo {
    pub(super) fn new(scm: ScriptedScm, name: &str) -> Self {
        Self { scm, name: name.to_owned() }
    }

    /// How events name it.
    pub fn reference(&self) -> RepoRef {
        let id = self.with(|repo| repo.id.clone());
        RepoRef { connection: self.scm.connection(), id, name: self.name.as_str().into() }
    }

    // --- refs and commits ----------------------------------------------------------------------

    /// Puts a commit on top of a branch, or begins the branch: from the default branch when that
    /// is there, else from nothing.
    pub fn push(&self, by: &str, branch: &str, files: &[(&str, &str)]) -> Observation {
        let reference = full(branch);
        let parent = self.with(|repo| {
            repo.refs.get(&reference).or_else(|| repo.refs.get(&repo.default_branch)).cloned()
        });
        let commit = self.commit(by, parent.as_ref(), files);
        self.move_ref(by, &reference, Some(commit), Some(false))
    }

    /// Puts a commit in the place of the branch's newest, on that one's parent.
    pub fn force_push(&self, by: &str, branch: &str, files: &[(&str, &str)]) -> Observation {
        let reference = full(branch);
        let head = self.head(branch);
        let parent =
            self.with(|repo| repo.commit(&head).ok().and_then(|c| c.info.parents.first().cloned()));
        let commit = self.commit(by, parent.as_ref(), files);
        self.move_ref(by, &reference, Some(commit), Some(true))
    }

    /// Puts a branch where it is told.
    pub fn reset(&self, by: &str, branch: &str, to: &CommitId) -> Observation {
        self.move_ref(by, &full(branch), Some(to.clone()), Some(true))
    }

    /// Takes a branch away.
    pub fn delete_branch(&self, by: &str, branch: &str) -> Observation {
        self.move_ref(by, &full(branch), None, None)
    }

    /// Puts a tag on the newest commit of a branch.
    pub fn tag(&self, by: &str, tag: &str, branch: &str) -> Observation {
        let head = self.head(branch);
        self.move_ref(by, &format!("refs/tags/{tag}").into(), Some(head), None)
    }

    /// Makes a commit that no ref leads to.
    pub fn commit(&self, by: &str, parent: Option<&CommitId>, files: &[(&str, &str)]) -> CommitId {
        self.with_host(|host| host.add_commit(&self.name, by, parent, files))
    }

    /// Takes a commit away, as a host does in the end with one that was forced away.
    pub fn lose_commit(&self, commit: &CommitId) {
        self.with(|repo| repo.commits.remove(commit));
    }

    /// Where a branch stands.
    pub fn head(&self, branch: &str) -> CommitId {
        let reference = full(branch);
        self.with(|repo| repo.refs.get(&reference).cloned())
            .unwrap_or_else(|| panic!("no branch {branch} in {}", self.name))
    }

    /// The present position of a ref as a poll reads it, begun when the ledger had that position.
    pub fn read_ref(&self, reference: &str, as_of: i64) -> Observation {
        let after = self.with(|repo| repo.refs.get(reference).cloned());
        let claim =
            RefClaim { name: reference.into(), after, before: Before::Unknown, forced: None };
        self.observe("poll", SubjectClaim::Ref(claim), None, Seen::Read { as_of })
    }

    // --- pull requests -------------------------------------------------------------------------

    /// Opens a pull request from a branch of the repository itself.
    pub fn open_pull_request(&self, by: &str, branch: &str, base: &str) -> (u64, Observation) {
        let head = Revision::new(self.head(branch), full(branch));
        self.open(by, head, base, false)
    }

    /// Opens a pull request from a fork: its head is a commit on top of the base with these files.
    pub fn open_fork_pull_request(
        &self,
        by: &str,
        base: &str,
        files: &[(&str, &str)],
    ) -> (u64, Observation) {
        let parent = self.head(base);
        let commit = self.commit(by, Some(&parent), files);
        self.open(by, Revision::new(commit, full("patch")), base, true)
    }

    /// Puts a commit on top of a pull request's head. Of a branch of the repository itself, only
    /// the pull request's event is returned; the branch moves too.
    pub fn push_to_pull_request(&self, number: u64, files: &[(&str, &str)]) -> Observation {
        let before = self.pull_request(number);
        let commit = self.commit(&before.author, Some(&before.head.sha), files);
        if !before.fork {
            self.with(|repo| repo.refs.insert(before.head.reference.clone(), commit.clone()));
        }
        self.edit_pull_request(&before.author, number, |pull_request| {
            pull_request.head.sha = commit;
        })
    }

    /// Changes a pull request: its base, draft, state, title and so on.
    pub fn edit_pull_request(
        &self,
        by: &str,
        number: u64,
        edit: impl FnOnce(&mut PullRequest),
    ) -> Observation {
        let pull_request = self.change_pull_request(number, edit);
        self.observe_pull_request(by, pull_request)
    }

    /// Puts a label on a pull request.
    pub fn label(&self, by: &str, number: u64, label: &str) -> Observation {
        let pull_request = self.change_pull_request(number, |pull_request| {
            if !pull_request.labels.iter().any(|one| &**one == label) {
                pull_request.labels.push(label.into());
                pull_request.labels.sort();
            }
        });
        self.observe_label(by, pull_request, label, true)
    }

    /// Takes a label off a pull request.
    pub fn unlabel(&self, by: &str, number: u64, label: &str) -> Observation {
        let pull_request = self.change_pull_request(number, |pull_request| {
            pull_request.labels.retain(|one| &**one != label);
        });
        self.observe_label(by, pull_request, label, false)
    }

    /// Comments on a pull request.
    pub fn comment(&self, by: &str, number: u64, body: &str) -> Observation {
        let id = self.with_host(|host| format!("c{}", host.count()));
        let comment = Comment {
            id: id.into(),
            author: by.into(),
            body: body.to_owned(),
            command: None,
            arguments: Vec::new(),
        };
        self.keep_comment(number, &comment);
        let claim = Occurrence::comment(comment, self.pull_request(number));
        self.observe("webhook", SubjectClaim::Occurrence(Box::new(claim)), Some(by), Seen::Told)
    }

    /// Comments on a pull request at a host whose webhook tells its number alone.
    pub fn comment_without_pull_request(&self, by: &str, number: u64, body: &str) -> Observation {
        let mut observation = self.comment(by, number, body);
        if let SubjectClaim::Occurrence(occurrence) = &mut observation.claim {
            occurrence.head = None;
            occurrence.pull_request = None;
            occurrence.lacks = Some(Lacks::PullRequest { number });
        }
        observation
    }

    /// Changes the text of the newest comment, which is told to nobody.
    pub fn edit_last_comment(&self, body: &str) {
        self.with_host(|host| {
            let now = host.tick();
            let repo = host.repos.get_mut(&self.name).expect("the repository was created");
            let last = repo.comments.last_mut().expect("there is a comment");
            last.comment.body = body.to_owned();
            last.updated_at = now;
            if let Some(on) = repo.pull_requests.get_mut(&last.pull_request) {
                on.updated_at = now;
            }
        });
    }

    fn keep_comment(&self, number: u64, comment: &Comment) {
        self.with_host(|host| {
            let now = host.tick();
            let repo = host.repos.get_mut(&self.name).expect("the repository was created");
            if let Some(on) = repo.pull_requests.get_mut(&number) {
                on.updated_at = now;
            }
            repo.comments.push(FoundComment {
                comment: comment.clone(),
                pull_request: number,
                created_at: now,
                updated_at: now,
            });
        });
    }

    /// A pull request as it is now.
    pub fn pull_request(&self, number: u64) -> PullRequest {
        self.with(|repo| repo.pull_requests.get(&number).cloned())
            .unwrap_or_else(|| panic!("no pull request {number} in {}", self.name))
    }

    // --- people --------------------------------------------------------------------------------

    /// Says what a person may do. Others may read.
    pub fn permit(&self, actor: &str, permission: Permission) {
        self.with(|repo| repo.permissions.insert(actor.into(), permission));
    }

    /// Puts a person into a team.
    pub fn join_team(&self, actor: &str, team: &str) {
        self.with(|repo| repo.teams.insert((actor.to_owned(), team.to_owned())));
    }

    // --- what the engine did -------------------------------------------------------------------

    /// The status that a context shows on a commit.
    pub fn status(&self, commit: &CommitId, context: &str) -> Option<Status> {
        self.status_history(commit, context).pop()
    }

    /// Every status that a context has shown on a commit, oldest first.
    pub fn status_history(&self, commit: &CommitId, context: &str) -> Vec<Status> {
        let key = (commit.clone(), Arc::from(context));
        self.with(|repo| repo.statuses.get(&key).cloned().unwrap_or_default())
    }

    /// The contexts that show something on a commit.
    pub fn status_contexts(&self, commit: &CommitId) -> Vec<Arc<str>> {
        self.with(|repo| {
            let of_commit = repo.statuses.keys().filter(|(of, _)| of == commit);
            of_commit.map(|(_, context)| Arc::clone(context)).collect()
        })
    }

    /// Whether a comment was acknowledged, and if so whether as accepted.
    pub fn acknowledged(&self, comment: &str) -> Option<bool> {
        self.with(|repo| repo.acknowledged.get(comment).copied())
    }

    /// The sticky comments of a pull request, by marker.
    pub fn sticky_comments(&self, number: u64) -> BTreeMap<String, String> {
        self.with(|repo| {
            let of_it = repo.sticky.iter().filter(|((of, _), _)| *of == number);
            of_it.map(|((_, marker), body)| (marker.clone(), body.clone())).collect()
        })
    }

    /// The addresses of its webhooks.
    pub fn webhooks(&self) -> Vec<String> {
        self.with(|repo| repo.webhooks.keys().cloned().collect())
    }

    // --- the host's side -----------------------------------------------------------------------

    /// Sets the host's clock, which else begins in 1970 and moves a second with each change.
    pub fn set_time(&self, now: Timestamp) {
        self.with_host(|host| host.set_time(now));
    }

    fn open(&self, by: &str, head: Revision, base: &str, fork: bool) -> (u64, Observation) {
        let base = Revision::new(self.head(base), full(base));
        let pull_request = self.with_host(|host| {
            let updated_at = host.tick();
            let repo = host.repos.get_mut(&self.name).expect("the repository was created");
            let number = repo.pull_requests.len() as u64 + 1;
            let pull_request = PullRequest {
                number,
                title: format!("Change {number}"),
                author: by.into(),
                draft: false,
                state: PullRequestState::Open,
                head,
                base,
                fork,
                labels: Vec::new(),
                url: Some(format!("https://scripted.example/{}/pull/{number}", self.name)),
                updated_at,
            };
            repo.pull_requests.insert(number, pull_request.clone());
            pull_request
        });
        (pull_request.number, self.observe_pull_request(by, pull_request))
    }

    fn change_pull_request(&self, number: u64, edit: impl FnOnce(&mut PullRequest)) -> PullRequest {
        self.with_host(|host| {
            let now = host.tick();
            let repo = host.repos.get_mut(&self.name).expect("the repository was created");
            let base = repo.pull_requests.get(&number).map(|one| one.base.reference.clone());
            let pull_request = repo
                .pull_requests
                .get_mut(&number)
                .unwrap_or_else(|| panic!("no pull request {number} in {}", self.name));
            edit(pull_request);
            pull_request.updated_at = now;
            if base.as_ref() != Some(&pull_request.base.reference) {
                let position = repo.refs.get(&pull_request.base.reference);
                pull_request.base.sha = position.expect("the new base is a branch").clone();
            }
            pull_request.clone()
        })
    }

    fn move_ref(
        &self,
        by: &str,
        reference: &Arc<str>,
        to: Option<CommitId>,
        forced: Option<bool>,
    ) -> Observation {
        let before = self.with_host(|host| {
            host.tick();
            let repo = host.repos.get_mut(&self.name).expect("the repository was created");
            match &to {
                Some(to) => repo.refs.insert(Arc::clone(reference), to.clone()),
                None => repo.refs.remove(reference),
            }
        });
        let claim = RefClaim {
            name: Arc::clone(reference),
            after: to,
            before: Before::Was(before),
            forced,
        };
        self.observe("webhook", SubjectClaim::Ref(claim), Some(by), Seen::Told)
    }

    fn observe_pull_request(&self, by: &str, pull_request: PullRequest) -> Observation {
        let claim = SubjectClaim::PullRequest(Box::new(PullRequestClaim { pull_request }));
        self.observe("webhook", claim, Some(by), Seen::Told)
    }

    fn observe_label(
        &self,
        by: &str,
        pull_request: PullRequest,
        label: &str,
        present: bool,
    ) -> Observation {
        let claim = LabelClaim { pull_request, label: label.into(), present };
        self.observe("webhook", SubjectClaim::Label(Box::new(claim)), Some(by), Seen::Told)
    }

    /// The observation of something that happened, with its JSON form as the raw payload; what the
    /// webhook tells is also kept in the delivery log.
    fn observe(
        &self,
        source: &str,
        claim: SubjectClaim,
        by: Option<&str>,
        seen: Seen,
    ) -> Observation {
        let body = Bytes::from(serde_json::to_vec(&claim).expect("a claim has a JSON form"));
        let delivery = self.with_host(|host| {
            let delivery = format!("{source}-{}", host.count());
            let sent_at = host.tick();
            if source == "webhook" {
                let repo = host.repos.get_mut(&self.name).expect("the repository was created");
                let logged = LoggedDelivery {
                    id: format!("log-{delivery}"),
                    delivery: delivery.as_str().into(),
                    sent_at,
                    succeeded: true,
                    may_matter: true,
                };
                let headers = vec![
                    ("x-scripted-delivery".to_owned(), delivery.clone()),
                    ("x-scripted-repository".to_owned(), format!("{} {}", repo.id, self.name)),
                ];
                let payload = DeliveredPayload { headers, body: body.clone() };
                repo.deliveries.push((logged, payload));
            }
            delivery
        });
        let mut observation = Observation::new(
            self.scm.tenant(),
            self.reference(),
            source.into(),
            delivery.as_str().into(),
            seen,
            claim,
        )
        .with_payload(Payload::new([("content-type", "application/json")], body));
        observation.sender = by.map(Arc::from);
        observation
    }

    fn with_host<T>(&self, work: impl FnOnce(&mut Host) -> T) -> T {
        work(&mut self.scm.host())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Repo) -> T) -> T {
        let mut host = self.scm.host();
        work(host.repos.get_mut(&self.name).expect("the repository was created"))
    }
}

fn full(branch: &str) -> Arc<str> {
    if branch.starts_with("refs/") { branch.into() } else { format!("refs/heads/{branch}").into() }
}

impl Host {
    fn add_commit(
        &mut self,
        repo: &str,
        by: &str,
        parent: Option<&CommitId>,
        files: &[(&str, &str)],
    ) -> CommitId {
        let committed_at = self.tick();
        let count = self.count().to_string();
        let repo = self.repos.get_mut(repo).expect("the repository was created");
        let mut tree = match parent {
            Some(parent) => repo.commit(parent).expect("the parent was committed").tree.clone(),
            None => Tree::new(),
        };
        for (path, content) in files {
            if content.is_empty() {
                tree.remove(*path);
            } else {
                tree.insert((*path).into(), (*content).into());
            }
        }
        let parent_text = parent.map_or("", CommitId::as_str);
        let digest = hash_of(&[repo.id.as_str(), parent_text, &tree_digest(&tree, ""), &count]);
        let id: CommitId = digest[..40].parse().expect("forty digits are a commit id");
        let info = CommitInfo {
            id: id.clone(),
            title: format!("Commit {count}").into(),
            author: by.into(),
            committed_at,
            parents: parent.cloned().into_iter().collect(),
        };
        repo.commits.insert(id.clone(), Commit { info, tree });
        id
    }
}
