//! What happened: [`Observation`], the [`SubjectClaim`] in it, and the [`Event`] that the ledger
//! makes of one that is news.

mod fold;
mod observation;
mod subject;

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::fold::recorded_head;
pub use self::{
    fold::{Fold, Folded, News, SubjectState, claimed_state, fold},
    observation::{Observation, Payload, Seen, Verified},
    subject::{
        Before, LabelClaim, NothingClaim, Occurrence, PullRequestClaim, RefClaim, SubjectClaim,
        SubjectKey,
    },
};
use crate::{CommitId, EventKey, RepoRef, SourceName, Tenant};

/// What kind of thing happened. Open: a private source may bring kinds of its own.
///
/// ```
/// use workflows_core::EventKind;
///
/// assert_eq!(EventKind::PUSH.as_str(), "push");
/// assert!(!EventKind::new("deployment").is_built_in());
/// ```
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct EventKind(std::borrow::Cow<'static, str>);

impl EventKind {
    /// A branch moved, appeared or went away.
    pub const PUSH: Self = Self::built_in("push");
    /// A tag moved, appeared or went away.
    pub const TAG: Self = Self::built_in("tag");
    /// A pull request changed.
    pub const PULL_REQUEST: Self = Self::built_in("pull_request");
    /// A pull request got or lost a label.
    pub const LABEL: Self = Self::built_in("label");
    /// Somebody commented on a pull request or a commit.
    pub const COMMENT: Self = Self::built_in("comment");
    /// A schedule's slot came.
    pub const SCHEDULE: Self = Self::built_in("schedule");
    /// A program or a person asked for a run.
    pub const MANUAL: Self = Self::built_in("manual");
    /// A person or a program told the engine something: cancel, approve, run again, and so on.
    /// Workflows cannot be triggered by it.
    pub const COMMAND: Self = Self::built_in("command");

    const fn built_in(name: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(name))
    }

    /// A kind of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(std::borrow::Cow::Owned(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the constants of this type.
    pub fn is_built_in(&self) -> bool {
        [
            Self::PUSH,
            Self::TAG,
            Self::PULL_REQUEST,
            Self::LABEL,
            Self::COMMENT,
            Self::SCHEDULE,
            Self::MANUAL,
            Self::COMMAND,
        ]
        .contains(self)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for EventKind {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A fact that was news to the ledger, normalised: the same for every host and every transport.
///
/// Filters and parameters see it as `event`, in the shape of its JSON form ([`Event::view`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The place in the order of intake; grows within the whole ledger.
    pub sequence: i64,
    /// Its key.
    pub key: EventKey,
    /// Its tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// What kind of thing happened.
    pub kind: EventKind,
    /// What was done, such as `opened` or `forced`. Several when a poll found several at once.
    pub actions: Vec<Arc<str>>,
    /// The subject that it is about.
    pub subject: SubjectKey,
    /// Whether its place in the subject's chain could not be told at intake: what came before it
    /// is not what was recorded. The repository is asked before it counts as the newest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchained: bool,
    /// The commit that it leads to, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Revision>,
    /// The commit that the ref had before (a push), or the base of the pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Revision>,
    /// The whole pull request as it was then, for pull requests, their labels and their comments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
    /// The label that came or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Arc<str>>,
    /// What belongs to it and the transport did not tell. Once something hung on the event it was
    /// fetched, is kept with the event, and this is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lacks>,
    /// The comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// Who did it, by the host's name, where the transport tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Arc<str>>,
    /// What the transport adds: a schedule's slot, a caller's parameters, a custom kind's fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Value>,
    /// When it happened, where the transport tells; else when it was seen.
    pub occurred_at: Timestamp,
    /// When the ledger took it in.
    pub received_at: Timestamp,
    /// Which source brought it.
    pub source: SourceName,
    /// The place of the raw payload in the ledger, when it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<i64>,
}

impl Event {
    /// The branch that branch filters look at: of a push the branch itself, of a pull request (its
    /// labels, its comments) the base branch; without `refs/heads/`.
    pub fn branch(&self) -> Option<&str> {
        let full = match &self.pull_request {
            Some(pull_request) => &pull_request.base.reference,
            None => &self.head.as_ref()?.reference,
        };
        full.strip_prefix("refs/heads/")
    }

    /// The tag, without `refs/tags/`.
    pub fn tag(&self) -> Option<&str> {
        self.head.as_ref()?.reference.strip_prefix("refs/tags/")
    }

    /// Whether one of the actions is this one.
    pub fn has_action(&self, action: &str) -> bool {
        self.actions.iter().any(|one| &**one == action)
    }

    /// Whether the ref that this event is about is gone. Nothing can run for it.
    pub fn is_deletion(&self) -> bool {
        self.has_action("deleted")
    }

    /// What filters and parameters see as `event`:
    ///
    /// | path | what |
    /// | --- | --- |
    /// | `kind`, `actions`, `action` | what happened; `action` is the first |
    /// | `repo.{connection,id,name,owner}` | where; `owner` is what stands before the last `/` |
    /// | `head.{sha,ref,branch,tag}` | the commit that a run is for |
    /// | `base.{sha,ref,branch}` | what was there before, or the pull request's base |
    /// | `pull_request.{number,title,author,draft,state,labels,fork,url,head,base}` | |
    /// | `label`, `comment.{id,body,author,command,arguments}`, `sender` | |
    /// | `data` | a schedule's slot, a caller's parameters, a custom kind's fields |
    /// | `key`, `time` | |
    ///
    /// What an event does not have is `null`, so that a path of this table is never an error.
    pub fn view(&self) -> Value {
        let revision = |revision: Option<&Revision>| match revision {
            Some(revision) => revision.view(),
            None => serde_json::json!({"sha": null, "ref": null, "branch": null, "tag": null}),
        };
        let pull_request = match &self.pull_request {
            Some(pull_request) => serde_json::json!({
                "number": pull_request.number,
                "title": pull_request.title,
                "author": pull_request.author,
                "draft": pull_request.draft,
                "state": pull_request.state,
                "labels": pull_request.labels,
                "fork": pull_request.fork,
                "url": pull_request.url,
                "head": pull_request.head.view(),
                "base": pull_request.base.view(),
            }),
            None => Value::Null,
        };
        let comment = match &self.comment {
            Some(comment) => serde_json::json!({
                "id": comment.id,
                "body": comment.body,
                "author": comment.author,
                "command": comment.command,
                "arguments": comment.arguments,
            }),
            None => Value::Null,
        };
        serde_json::json!({
            "kind": self.kind,
            "actions": self.actions,
            "action": self.actions.first(),
            "repo": {
                "connection": self.repo.connection,
                "id": self.repo.id,
                "name": self.repo.name,
                "owner": self.repo.name.rsplit_once('/').map(|(owner, _)| owner),
            },
            "head": revision(self.head.as_ref()),
            "base": revision(self.base.as_ref()),
            "pull_request": pull_request,
            "label": self.label,
            "comment": comment,
            "sender": self.sender,
            "data": self.data,
            "key": self.key,
            "time": self.occurred_at,
        })
    }
}

/// What belongs to an event and its transport did not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
#[non_exhaustive]
pub enum Lacks {
    /// The pull request that it is about.
    PullRequest {
        /// Its number.
        number: u64,
    },
    /// Who made the pull request that it is about, and where the base stands: the rest was told.
    PullRequestDetails {
        /// Its number.
        number: u64,
    },
    /// Whether the commit of a branch descends from the one before, or the push was forced.
    Descent,
    /// The commit at which a ref stands.
    Commit {
        /// The full name.
        reference: Arc<str>,
    },
}

/// A commit, and the ref at which it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The commit.
    pub sha: CommitId,
    /// The full ref name, such as `refs/heads/main` or `refs/tags/v1`.
    #[serde(rename = "ref")]
    pub reference: Arc<str>,
}

impl Revision {
    /// A commit at a ref.
    pub fn new(sha: CommitId, reference: impl Into<Arc<str>>) -> Self {
        Self { sha, reference: reference.into() }
    }

    fn view(&self) -> Value {
        serde_json::json!({
            "sha": self.sha,
            "ref": self.reference,
            "branch": self.reference.strip_prefix("refs/heads/"),
            "tag": self.reference.strip_prefix("refs/tags/"),
        })
    }
}

/// A pull request (GitLab: merge request) as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Who opened it, by the host's name.
    pub author: Arc<str>,
    /// Whether it is a draft.
    pub draft: bool,
    /// Open, closed or merged.
    pub state: PullRequestState,
    /// The commit to be merged.
    pub head: Revision,
    /// What it is to be merged into. The commit moves by itself and is no part of its identity; a
    /// transport that does not tell it writes [`CommitId::null`], and it is asked for, with the
    /// author, when something hangs on the event.
    pub base: Revision,
    /// Whether the head is in another repository, whose writers need not be this one's.
    pub fork: bool,
    /// Its labels, in alphabetical order.
    pub labels: Vec<Arc<str>>,
    /// Its page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When the host last changed it; what is older than what is recorded is not news.
    pub updated_at: Timestamp,
}

/// Whether a pull request is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullRequestState {
    /// It can be merged.
    Open,
    /// It was closed without a merge.
    Closed,
    /// It was merged.
    Merged,
}

/// A comment on a pull request or a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// The host's id of it.
    pub id: Arc<str>,
    /// Who wrote it, by the host's name.
    pub author: Arc<str>,
    /// Its text.
    pub body: String,
    /// The command that matched a trigger, such as `/bench`. Set when the trigger is matched, not
    /// by the transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Arc<str>>,
    /// What stands behind the command on its line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}
