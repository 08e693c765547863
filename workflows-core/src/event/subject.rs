//! What an observation is about, and what it claims.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Comment, EventKind, Lacks, PullRequest, Revision};
use crate::CommitId;

/// The name of a subject within its repository, such as `refs/heads/main`, `pull/7`,
/// `pull/7/label/bug` or `comment/123`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectKey(Arc<str>);

impl SubjectKey {
    /// A ref, by its full name.
    pub fn reference(name: &str) -> Self {
        Self(name.into())
    }

    /// A pull request.
    pub fn pull_request(number: u64) -> Self {
        Self(format!("pull/{number}").into())
    }

    /// A delivery that claims nothing, by what it was.
    pub fn nothing(what: &str) -> Self {
        Self(format!("nothing/{what}").into())
    }

    /// A label of a pull request.
    pub fn label(pull_request: u64, label: &str) -> Self {
        Self(format!("pull/{pull_request}/label/{label}").into())
    }

    /// Something that happens once and has an id of its own.
    pub fn occurrence(kind: &EventKind, id: &str) -> Self {
        Self(format!("{kind}/{id}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a transport says about a subject. The ledger decides whether it is news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "subject")]
#[non_exhaustive]
pub enum SubjectClaim {
    /// A branch or tag stands somewhere, or is gone.
    Ref(RefClaim),
    /// A pull request is so.
    PullRequest(Box<PullRequestClaim>),
    /// A pull request has a label, or has it no longer.
    Label(Box<LabelClaim>),
    /// Something happened that has an id of its own: a comment, a slot, a manual request, a
    /// command, a custom kind.
    Occurrence(Box<Occurrence>),
    /// A delivery told of nothing that a workflow could wait for. It is recorded, with the reason,
    /// and makes no event.
    Nothing(Box<NothingClaim>),
}

impl SubjectClaim {
    /// The subject's name in its repository.
    pub fn subject(&self) -> SubjectKey {
        match self {
            Self::Ref(claim) => SubjectKey::reference(&claim.name),
            Self::PullRequest(claim) => SubjectKey::pull_request(claim.pull_request.number),
            Self::Label(claim) => SubjectKey::label(claim.pull_request.number, &claim.label),
            Self::Occurrence(claim) => SubjectKey::occurrence(&claim.kind, &claim.id),
            Self::Nothing(claim) => SubjectKey::nothing(&claim.what),
        }
    }
}

/// Where a branch or tag stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefClaim {
    /// The full name, such as `refs/heads/feature/x`.
    pub name: Arc<str>,
    /// The commit; `None` when it is gone. Of an annotated tag, the commit that it marks.
    pub after: Option<CommitId>,
    /// What a push says was there before.
    pub before: Before,
    /// Whether the host said that the push was not a fast-forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<bool>,
}

/// What a claim knows about the position before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Before {
    /// The transport told: this commit, or (`None`) the ref did not exist.
    Was(Option<CommitId>),
    /// It is a reading of the present position; what was before is what the ledger has.
    Unknown,
}

/// How a pull request is. The ledger finds the actions (`opened`, `updated`, `reopened`,
/// `retargeted`, `ready`, `drafted`, `closed`, `merged`) by comparing with what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullRequestClaim {
    /// The whole pull request.
    pub pull_request: PullRequest,
}

/// Whether a pull request has a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelClaim {
    /// The whole pull request.
    pub pull_request: PullRequest,
    /// The label.
    pub label: Arc<str>,
    /// Whether it is there.
    pub present: bool,
}

/// That a delivery is of no interest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NothingClaim {
    /// What the host calls it, such as `star.created`.
    pub what: Arc<str>,
    /// Why nothing can come of it, for people.
    pub reason: String,
}

/// Something that happened once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Occurrence {
    /// What kind of thing.
    pub kind: EventKind,
    /// Its id, unique for its kind and repository: the same id is the same occurrence.
    pub id: Arc<str>,
    /// What was done.
    #[serde(default)]
    pub actions: Vec<Arc<str>>,
    /// The commit that it is about; a run of it is for that commit.
    #[serde(default)]
    pub head: Option<Revision>,
    /// The pull request that it is about, as it is now.
    #[serde(default)]
    pub pull_request: Option<PullRequest>,
    /// What belongs to it and the transport did not tell. The engine asks the repository for it
    /// when something hangs on the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lacks>,
    /// The comment that it is.
    #[serde(default)]
    pub comment: Option<Comment>,
    /// Whatever else belongs to it.
    #[serde(default)]
    pub data: BTreeMap<String, Value>,
    /// When it happened, where that is known.
    #[serde(default)]
    pub occurred_at: Option<Timestamp>,
}

impl Occurrence {
    /// An occurrence with a kind and an id.
    pub fn new(kind: EventKind, id: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            id: id.into(),
            actions: Vec::new(),
            head: None,
            pull_request: None,
            lacks: None,
            comment: None,
            data: BTreeMap::new(),
            occurred_at: None,
        }
    }

    /// A comment on a pull request. The event carries the whole pull request, so that filters on
    /// `event.pull_request` hold.
    pub fn comment(comment: Comment, pull_request: PullRequest) -> Self {
        let mut occurrence = Self::commented(comment);
        occurrence.head = Some(pull_request.head.clone());
        occurrence.pull_request = Some(pull_request);
        occurrence
    }

    /// A comment on a pull request of which the transport tells no more than the number.
    pub fn comment_on(comment: Comment, pull_request: u64) -> Self {
        let mut occurrence = Self::commented(comment);
        occurrence.lacks = Some(Lacks::PullRequest { number: pull_request });
        occurrence
    }

    /// A comment on a commit of the repository. The commit stands for the ref, too, for none is told.
    pub fn comment_at(comment: Comment, commit: &CommitId) -> Self {
        let mut occurrence = Self::commented(comment);
        occurrence.head = Some(Revision::new(commit.clone(), commit.as_str()));
        occurrence
    }

    fn commented(comment: Comment) -> Self {
        let mut occurrence = Self::new(EventKind::COMMENT, Arc::clone(&comment.id));
        occurrence.actions = vec!["created".into()];
        occurrence.comment = Some(comment);
        occurrence
    }
}
