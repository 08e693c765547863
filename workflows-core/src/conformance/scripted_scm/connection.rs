//! A repository of the scripted host as the engine sees it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::{
    ScmCall, ScriptedScm,
    host::{Repo, tree_digest},
};
use crate::{
    Capability, CloneCredential, CommitId, ConnectionName, Error, Permission, RepoConnection,
    RepoId, RepoRef, Result,
    event::{PullRequest, PullRequestState},
    hash_of,
    repo::{
        ChangedFile, CloneCredentials, CommentFeed, Commenter, CommitInfo, DeliveredPayload,
        DeliveryLog, Directory, DirectoryEntry, EarlierReport, EntryKind, FoundComment, History,
        ListOptions, LoggedDelivery, Permissions, PullRequests, ReadLimit, RefPosition, RepoLinks,
        ReportedStatus, Status, StatusReporter, Webhook, WebhookAdmin,
    },
};

#[derive(Debug)]
pub(super) struct ScriptedConnection {
    scm: ScriptedScm,
    repo: RepoRef,
}

impl ScriptedConnection {
    pub(super) fn new(
        scm: ScriptedScm,
        connection: ConnectionName,
        id: RepoId,
        name: &str,
    ) -> Self {
        Self { scm, repo: RepoRef { connection, id, name: name.into() } }
    }

    fn call<T>(
        &self,
        call: ScmCall,
        about: impl fmt::Display,
        work: impl FnOnce(&mut Repo) -> Result<T>,
    ) -> Result<T> {
        let about = format!("{} {about}", self.repo.name);
        self.scm.host().call(call, about, |host| work(host.repo(&self.repo.name)?))
    }

    fn stream<T: Send + 'static>(&self, items: Result<Vec<T>>) -> BoxStream<'_, Result<T>> {
        match items {
            Ok(items) => futures::stream::iter(items.into_iter().map(Ok)).boxed(),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    fn offers(&self, capability: Capability) -> Option<&Self> {
        self.scm.capabilities.has(capability).then_some(self)
    }
}

#[async_trait]
impl RepoConnection for ScriptedConnection {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        let page = format!("https://scripted.example/{}", self.repo.name);
        RepoLinks::clone_from(format!("{page}.git")).with_web_url(page)
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        self.call(ScmCall::DefaultBranch, "", |repo| Ok(Arc::clone(&repo.default_branch)))
    }

    async fn resolve(&self, reference: &str) -> Result<CommitId> {
        self.call(ScmCall::Resolve, reference, |repo| {
            if let Ok(id) = reference.parse::<CommitId>() {
                return repo.commit(&id).map(|commit| commit.info.id.clone());
            }
            repo.refs.get(reference).cloned().ok_or_else(|| {
                Error::not_found("resolve", "there is no such ref").with("ref", reference)
            })
        })
    }

    fn refs(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        let positions = self.call(ScmCall::Refs, prefixes.join(" "), |repo| {
            let matching = repo
                .refs
                .iter()
                .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(&**prefix)));
            Ok(matching
                .map(|(name, commit)| RefPosition {
                    name: Arc::clone(name),
                    commit: commit.clone(),
                })
                .collect())
        });
        self.stream(positions)
    }

    async fn read_file(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        self.call(ScmCall::ReadFile, format!("{commit} {path}"), |repo| {
            let content = repo.commit(commit)?.tree.get(path).cloned().ok_or_else(|| {
                Error::not_found("read file", "no such file at that commit")
                    .with("path", path)
                    .with("commit", commit)
            })?;
            if content.len() > limit.max_bytes {
                return Err(Error::invalid("read file", "the file is too large")
                    .with("path", path)
                    .with("bytes", content.len())
                    .with("most", limit.max_bytes));
            }
            Ok(Bytes::copy_from_slice(content.as_bytes()))
        })
    }

    async fn list_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        self.call(ScmCall::ListDirectory, format!("{commit} {path}"), |repo| {
            let tree = &repo.commit(commit)?.tree;
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let mut entries: Vec<DirectoryEntry> = Vec::new();
            for (full, content) in tree.iter().filter(|(full, _)| full.starts_with(&prefix)) {
                let below = &full[prefix.len()..];
                match below.split_once('/') {
                    Some((directory, _)) if !options.recursive => {
                        if entries.last().is_none_or(|last| &*last.path != directory) {
                            entries.push(DirectoryEntry {
                                path: directory.into(),
                                kind: EntryKind::Directory,
                                digest: None,
                            });
                        }
                    }
                    _ => entries.push(DirectoryEntry {
                        path: below.into(),
                        kind: EntryKind::File,
                        digest: Some(hash_of(&[content])[..40].into()),
                    }),
                }
            }
            if entries.len() > options.max_entries {
                return Err(Error::invalid("list directory", "the directory has too many entries")
                    .with("path", path)
                    .with("most", options.max_entries));
            }
            let digest = (!entries.is_empty()).then(|| tree_digest(tree, &prefix).into());
            Ok(Directory::new(digest, entries))
        })
    }

    fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        let about = format!("{}..{to}", from.map_or("", CommitId::as_str));
        let files = self.call(ScmCall::ChangedFiles, about, |repo| repo.changed_files(from, to));
        self.stream(files)
    }

    fn history(&self) -> Option<&dyn History> {
        self.offers(Capability::History).map(|power| power as _)
    }

    fn pull_requests(&self) -> Option<&dyn PullRequests> {
        self.offers(Capability::PullRequests).map(|power| power as _)
    }

    fn permissions(&self) -> Option<&dyn Permissions> {
        self.offers(Capability::Permissions).map(|power| power as _)
    }

    fn clone_credentials(&self) -> Option<&dyn CloneCredentials> {
        self.offers(Capability::CloneCredentials).map(|power| power as _)
    }

    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        self.offers(Capability::StatusReporter).map(|power| power as _)
    }

    fn commenter(&self) -> Option<&dyn Commenter> {
        self.offers(Capability::Commenter).map(|power| power as _)
    }

    fn comment_feed(&self) -> Option<&dyn CommentFeed> {
        self.offers(Capability::CommentFeed).map(|power| power as _)
    }

    fn webhook_admin(&self) -> Option<&dyn WebhookAdmin> {
        self.offers(Capability::WebhookAdmin).map(|power| power as _)
    }

    fn delivery_log(&self) -> Option<&dyn DeliveryLog> {
        self.offers(Capability::DeliveryLog).map(|power| power as _)
    }
}

#[async_trait]
impl History for ScriptedConnection {
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        self.call(ScmCall::Commit, id, |repo| Ok(repo.commit(id)?.info.clone()))
    }

    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        self.call(ScmCall::IsAncestor, format!("{ancestor} {descendant}"), |repo| {
            repo.is_ancestor(ancestor, descendant)
        })
    }

    async fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>> {
        self.call(ScmCall::MergeBase, format!("{one} {other}"), |repo| repo.merge_base(one, other))
    }

    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>> {
        self.call(ScmCall::FirstParentAsOf, reference, |repo| {
            let mut next = Some(repo.refs.get(reference).cloned().ok_or_else(|| {
                Error::not_found("read history", "there is no such ref").with("ref", reference)
            })?);
            while let Some(id) = next {
                let commit = repo.commit(&id)?;
                if commit.info.committed_at <= instant {
                    return Ok(Some(id));
                }
                next = commit.info.parents.first().cloned();
            }
            Ok(None)
        })
    }
}

#[async_trait]
impl PullRequests for ScriptedConnection {
    async fn get(&self, number: u64) -> Result<PullRequest> {
        self.call(ScmCall::PullRequest, number, |repo| {
            repo.pull_requests.get(&number).cloned().ok_or_else(|| {
                Error::not_found("get pull request", "there is no such pull request")
                    .with("number", number)
            })
        })
    }

    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        let changed = self.call(ScmCall::PullRequestsChangedSince, "", |repo| {
            let mut changed: Vec<PullRequest> = repo
                .pull_requests
                .values()
                .filter(|one| since.is_none_or(|since| one.updated_at >= since))
                .cloned()
                .collect();
            changed.sort_by_key(|one| std::cmp::Reverse(one.updated_at));
            Ok(changed)
        });
        self.stream(changed)
    }

    fn open(&self) -> BoxStream<'_, Result<PullRequest>> {
        let open = self.call(ScmCall::OpenPullRequests, "", |repo| {
            let all = repo.pull_requests.values();
            Ok(all.filter(|one| one.state == PullRequestState::Open).cloned().collect())
        });
        self.stream(open)
    }
}

#[async_trait]
impl Permissions for ScriptedConnection {
    async fn of(&self, actor: &str) -> Result<Permission> {
        self.call(ScmCall::Permission, actor, |repo| {
            Ok(repo.permissions.get(actor).copied().unwrap_or(Permission::Read))
        })
    }

    async fn is_member(&self, actor: &str, team: &str) -> Result<bool> {
        self.call(ScmCall::IsMember, format!("{actor} {team}"), |repo| {
            Ok(repo.teams.contains(&(actor.to_owned(), team.to_owned())))
        })
    }
}

#[async_trait]
impl CloneCredentials for ScriptedConnection {
    async fn mint(&self, for_at_least: SignedDuration) -> Result<CloneCredential> {
        let expires_at = self.scm.host().credentials_until;
        self.call(ScmCall::MintCredential, for_at_least, |_| {
            Ok(CloneCredential {
                username: "scripted".into(),
                token: SecretString::from(format!("token-of-{}", self.repo.name)),
                expires_at,
            })
        })
    }
}

#[async_trait]
impl StatusReporter for ScriptedConnection {
    /// A status whose owner is the one that shows and that would go backwards is refused, as
    /// careful hosts do; a status of another owner replaces it.
    async fn report(&self, status: &Status, earlier: EarlierReport<'_>) -> Result<ReportedStatus> {
        let about = format!("{} {} {:?}", status.commit, status.context, status.state);
        let takes_older = self.scm.host().takes_older_statuses;
        self.call(ScmCall::ReportStatus, about, |repo| {
            repo.commit(&status.commit)?;
            let key = (status.commit.clone(), Arc::clone(&status.context));
            let history = repo.statuses.entry(key).or_default();
            let is_later = |shown: &&Status| {
                shown.external_id == status.external_id && shown.state.rank() > status.state.rank()
            };
            let looks = !takes_older || earlier.id.is_none();
            let later = history.iter().rfind(is_later).filter(|_| looks);
            if let Some(shown) = later {
                return Err(Error::conflict("report status", "a later state shows already")
                    .with("shows", format!("{:?}", shown.state))
                    .with("asked", format!("{:?}", status.state)));
            }
            if history.last() != Some(status) {
                history.push(status.clone());
            }
            Ok(ReportedStatus { id: format!("status/{}", status.context), link: None })
        })
    }
}

impl CommentFeed for ScriptedConnection {
    fn comments_since(&self, since: Timestamp) -> BoxStream<'_, Result<FoundComment>> {
        let found = self.call(ScmCall::CommentsSince, since, |repo| {
            let found = repo.comments.iter().filter(|one| one.updated_at >= since);
            Ok(found.cloned().collect())
        });
        self.stream(found)
    }
}

#[async_trait]
impl Commenter for ScriptedConnection {
    async fn upsert(
        &self,
        pull_request: u64,
        marker: &str,
        body: &str,
        _known: Option<&str>,
    ) -> Result<String> {
        self.call(ScmCall::UpsertComment, format!("{pull_request} {marker}"), |repo| {
            repo.sticky.insert((pull_request, marker.to_owned()), body.to_owned());
            Ok(format!("sticky/{pull_request}/{marker}"))
        })
    }

    async fn acknowledge(&self, pull_request: u64, comment: &str, accepted: bool) -> Result<()> {
        self.call(ScmCall::Acknowledge, format!("{pull_request} {comment} {accepted}"), |repo| {
            repo.acknowledged.insert(comment.to_owned(), accepted);
            Ok(())
        })
    }
}

#[async_trait]
impl WebhookAdmin for ScriptedConnection {
    async fn ensure(&self, hook: &Webhook) -> Result<String> {
        self.call(ScmCall::EnsureWebhook, &hook.url, |repo| {
            repo.webhooks.insert(hook.url.clone(), hook.events.clone());
            Ok(format!("hook/{}", hook.url))
        })
    }

    async fn remove(&self, url: &str) -> Result<()> {
        self.call(ScmCall::RemoveWebhook, url, |repo| {
            repo.webhooks.remove(url);
            Ok(())
        })
    }
}

#[async_trait]
impl DeliveryLog for ScriptedConnection {
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>> {
        let logged = self.call(ScmCall::ListDeliveries, "", |repo| {
            let newest_first = repo.deliveries.iter().rev().map(|(logged, _)| logged);
            Ok(newest_first.filter(|logged| logged.sent_at >= since).cloned().collect())
        });
        self.stream(logged)
    }

    async fn replay(&self, id: &str) -> Result<DeliveredPayload> {
        self.call(ScmCall::ReplayDelivery, id, |repo| {
            let found = repo.deliveries.iter().find(|(logged, _)| logged.id == id);
            found.map(|(_, payload)| payload.clone()).ok_or_else(|| {
                Error::not_found("replay delivery", "there is no such delivery").with("id", id)
            })
        })
    }
}
