//! Whether an observation is news: folding it into the recorded state of its subject.
//!
//! This is a pure function, so that every store decides alike. The store brings what it has
//! recorded, and keeps what comes out in the same transaction.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Before, Event, EventKind, Lacks, Observation, PullRequest, PullRequestState, RefClaim,
    Revision, Seen, SubjectClaim,
};
use crate::{CommitId, EventKey};

/// What the ledger has recorded of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectState {
    /// Its state, as it stands in event keys.
    pub state: String,
    /// The ledger's position when it was last changed.
    pub changed: i64,
    /// The newest `updated_at` that the host told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

/// What a store brings to [`fold`].
#[derive(Debug, Clone, Copy)]
pub struct Fold<'a> {
    /// What is recorded of the subject, if anything.
    pub recorded: Option<&'a SubjectState>,
    /// Whether the subject has been at the claimed state before, or was said to have been.
    pub seen_before: bool,
}

/// What comes out of folding an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// Nothing new; the reason is for people. `refresh` is a newer `updated_at` to record.
    Duplicate {
        /// Why it is no news.
        reason: Cow<'static, str>,
        /// A newer `updated_at` for the same state.
        refresh: Option<Timestamp>,
    },
    /// The state is recorded, and makes no event.
    Baseline {
        /// The new state.
        state: String,
        /// The host's time of it.
        updated_at: Option<Timestamp>,
    },
    /// The state is recorded, and makes an event.
    News(Box<News>),
}

/// A change of a subject's state that was not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The new state.
    pub state: String,
    /// The host's time of it.
    pub updated_at: Option<Timestamp>,
    /// What was done.
    pub actions: Vec<Arc<str>>,
    /// A state that the subject must have had in between, and that was never recorded: a claim
    /// that leads to it later is older than this one.
    pub passed: Option<String>,
    /// See [`Event::unchained`].
    pub unchained: bool,
    /// The commit that a ref had before, when it is known.
    pub before: Option<CommitId>,
}

/// The state, as it stands in event keys, that an observation claims.
pub fn claimed_state(claim: &SubjectClaim) -> String {
    match claim {
        SubjectClaim::Ref(claim) => ref_state(claim.after.as_ref()),
        SubjectClaim::PullRequest(claim) => pull_request_state(&claim.pull_request),
        SubjectClaim::Label(claim) => {
            if claim.present {
                "present".to_owned()
            } else {
                "absent".to_owned()
            }
        }
        SubjectClaim::Occurrence(_) => "once".to_owned(),
        SubjectClaim::Nothing(_) => "nothing".to_owned(),
    }
}

/// Decides whether an observation is news for what is recorded of its subject.
pub fn fold(observation: &Observation, stored: Fold<'_>) -> Folded {
    if let SubjectClaim::Nothing(claim) = &observation.claim {
        return Folded::Duplicate { reason: claim.reason.clone().into(), refresh: None };
    }
    let state = claimed_state(&observation.claim);
    let told_at = updated_at(&observation.claim);
    if let Some(recorded) = stored.recorded {
        if let Seen::Read { as_of } | Seen::Baseline { as_of } = observation.seen
            && recorded.changed > as_of
        {
            return duplicate("the subject changed in the ledger after this was read");
        }
        if recorded.state == state {
            return Folded::Duplicate {
                reason: "the subject is already recorded in this state".into(),
                refresh: told_at.filter(|at| recorded.updated_at.is_none_or(|old| *at > old)),
            };
        }
        if let (Some(told), Some(known)) = (told_at, recorded.updated_at)
            && told < known
        {
            return duplicate("the host changed the subject again after this");
        }
    }
    if let Seen::Baseline { .. } = observation.seen {
        return Folded::Baseline { state, updated_at: told_at };
    }
    match &observation.claim {
        SubjectClaim::Ref(claim) => fold_ref(claim, state, stored),
        SubjectClaim::PullRequest(claim) => {
            let actions = pull_request_actions(stored.recorded, &claim.pull_request);
            news(state, told_at, actions)
        }
        SubjectClaim::Label(claim) => {
            if stored.recorded.is_none() && !claim.present && observation.seen != Seen::Told {
                return Folded::Baseline { state, updated_at: told_at };
            }
            let action = if claim.present { "labeled" } else { "unlabeled" };
            news(state, told_at, vec![action.into()])
        }
        SubjectClaim::Occurrence(claim) => news(state, told_at, claim.actions.clone()),
        SubjectClaim::Nothing(_) => duplicate("it claims nothing"),
    }
}

impl News {
    /// The event that this news makes of its observation.
    pub fn into_event(
        self,
        observation: &Observation,
        sequence: i64,
        k: u32,
        received_at: Timestamp,
        payload: Option<i64>,
    ) -> Event {
        let subject = observation.claim.subject();
        let key = EventKey::new(format!(
            "{}/{}/{}/{}/{}",
            observation.tenant, observation.repo.id, subject, self.state, k
        ));
        let mut event = Event {
            sequence,
            key,
            tenant: observation.tenant.clone(),
            repo: observation.repo.clone(),
            kind: kind_of(&observation.claim),
            actions: self.actions,
            subject,
            unchained: self.unchained,
            head: None,
            base: None,
            pull_request: None,
            label: None,
            lacks: None,
            comment: None,
            sender: observation.sender.clone(),
            data: Default::default(),
            occurred_at: observation.occurred_at.or(self.updated_at).unwrap_or(received_at),
            received_at,
            source: observation.source.clone(),
            payload,
        };
        match &observation.claim {
            SubjectClaim::Ref(claim) => {
                let at = |sha: &CommitId| Revision::new(sha.clone(), Arc::clone(&claim.name));
                event.head = claim.after.as_ref().map(at);
                event.base = self.before.as_ref().map(at);
                let is_branch = claim.name.starts_with("refs/heads/");
                let has_both = event.head.is_some() && event.base.is_some();
                if observation.seen == Seen::Told && claim.forced.is_none() && is_branch && has_both
                {
                    event.lacks = Some(Lacks::Descent);
                }
            }
            SubjectClaim::PullRequest(claim) => event.set_pull_request(&claim.pull_request),
            SubjectClaim::Label(claim) => {
                event.set_pull_request(&claim.pull_request);
                event.label = Some(Arc::clone(&claim.label));
            }
            SubjectClaim::Occurrence(claim) => {
                if let Some(pull_request) = &claim.pull_request {
                    event.set_pull_request(pull_request);
                }
                if claim.head.is_some() {
                    event.head.clone_from(&claim.head);
                }
                event.comment.clone_from(&claim.comment);
                if claim.lacks.is_some() {
                    event.lacks.clone_from(&claim.lacks);
                }
                event.data.clone_from(&claim.data);
                if let Some(at) = claim.occurred_at {
                    event.occurred_at = at;
                }
                if event.sender.is_none() {
                    event.sender = claim.comment.as_ref().map(|c| Arc::clone(&c.author));
                }
            }
            SubjectClaim::Nothing(_) => {}
        }
        event
    }
}

impl Event {
    pub(crate) fn set_pull_request(&mut self, pull_request: &PullRequest) {
        self.head = Some(pull_request.head.clone());
        self.base = Some(pull_request.base.clone());
        self.pull_request = Some(pull_request.clone());
        if pull_request.base.sha.is_null() {
            self.lacks = Some(Lacks::PullRequestDetails { number: pull_request.number });
        }
    }
}

fn duplicate(reason: &'static str) -> Folded {
    Folded::Duplicate { reason: reason.into(), refresh: None }
}

fn news(state: String, updated_at: Option<Timestamp>, actions: Vec<Arc<str>>) -> Folded {
    Folded::News(Box::new(News {
        state,
        updated_at,
        actions,
        passed: None,
        unchained: false,
        before: None,
    }))
}

fn kind_of(claim: &SubjectClaim) -> EventKind {
    match claim {
        SubjectClaim::Ref(claim) if claim.name.starts_with("refs/tags/") => EventKind::TAG,
        SubjectClaim::Ref(_) => EventKind::PUSH,
        SubjectClaim::PullRequest(_) => EventKind::PULL_REQUEST,
        SubjectClaim::Label(_) => EventKind::LABEL,
        SubjectClaim::Occurrence(claim) => claim.kind.clone(),
        SubjectClaim::Nothing(claim) => EventKind::new(&*claim.what),
    }
}

fn updated_at(claim: &SubjectClaim) -> Option<Timestamp> {
    match claim {
        SubjectClaim::PullRequest(claim) => Some(claim.pull_request.updated_at),
        SubjectClaim::Label(claim) => Some(claim.pull_request.updated_at),
        SubjectClaim::Ref(_) | SubjectClaim::Occurrence(_) | SubjectClaim::Nothing(_) => None,
    }
}

const GONE: &str = "gone";

fn ref_state(position: Option<&CommitId>) -> String {
    position.map_or_else(|| GONE.to_owned(), CommitId::to_string)
}

fn fold_ref(claim: &RefClaim, state: String, stored: Fold<'_>) -> Folded {
    let recorded = stored.recorded.map(|subject| subject.state.as_str());
    let recorded_commit = recorded.and_then(|state| state.parse::<CommitId>().ok());
    let (before, unchained) = match &claim.before {
        Before::Unknown if recorded.is_none() && claim.after.is_none() => {
            return duplicate("the ref is gone and was never recorded");
        }
        Before::Unknown => (recorded_commit.clone(), false),
        Before::Was(before) => {
            let chained = match recorded {
                None => true,
                Some(recorded) => recorded == ref_state(before.as_ref()),
            };
            if !chained && stored.seen_before {
                return duplicate("the ref was at this commit before, and has moved on");
            }
            (before.clone(), !chained)
        }
    };
    let action = match (&before, &claim.after) {
        (_, None) => "deleted",
        (None, Some(_)) => "created",
        (Some(_), Some(_)) if claim.forced == Some(true) => "forced",
        (Some(_), Some(_)) => "updated",
    };
    Folded::News(Box::new(News {
        state,
        updated_at: None,
        actions: vec![action.into()],
        passed: if unchained { Some(ref_state(before.as_ref())) } else { None },
        unchained,
        before,
    }))
}

fn pull_request_state(pull_request: &PullRequest) -> String {
    let draft = if pull_request.draft { "draft" } else { "ready" };
    let state = match pull_request.state {
        PullRequestState::Open => "open",
        PullRequestState::Closed => "closed",
        PullRequestState::Merged => "merged",
    };
    format!("{},{},{draft},{state}", pull_request.head.sha, pull_request.base.reference)
}

/// The head in the recorded state of a pull request.
pub(crate) fn recorded_head(state: &str) -> Option<&str> {
    state.split_once(',').map(|(head, _)| head)
}

/// What was done to a pull request, from its recorded state and the claimed one.
fn pull_request_actions(recorded: Option<&SubjectState>, now: &PullRequest) -> Vec<Arc<str>> {
    let terminal = match now.state {
        PullRequestState::Open => None,
        PullRequestState::Closed => Some("closed"),
        PullRequestState::Merged => Some("merged"),
    };
    // A ref name may hold a comma, so the state is taken apart from both ends.
    let parts = recorded.and_then(|recorded| {
        let (sha, rest) = recorded.state.split_once(',')?;
        let (rest, state) = rest.rsplit_once(',')?;
        let (base, draft) = rest.rsplit_once(',')?;
        Some((sha, base, draft == "draft", state))
    });
    let Some((sha, base, draft, state)) = parts else {
        return vec![terminal.unwrap_or("opened").into()];
    };
    let mut actions: Vec<Arc<str>> = Vec::new();
    match (state, terminal) {
        ("open", Some(action)) => actions.push(action.into()),
        ("closed", Some("merged")) => actions.push("merged".into()),
        ("closed" | "merged", None) => actions.push("reopened".into()),
        _ => {}
    }
    if sha != now.head.sha.as_str() {
        actions.push("updated".into());
    }
    if base != &*now.base.reference {
        actions.push("retargeted".into());
    }
    match (draft, now.draft) {
        (true, false) => actions.push("ready".into()),
        (false, true) => actions.push("drafted".into()),
        _ => {}
    }
    actions
}
