//! Merge requests as GitLab writes them, in its REST API and in its events.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize};
use workflows_core::{
    CommitId, Result,
    event::{PullRequest, PullRequestState, Revision},
};

/// An instant as GitLab writes it: with an offset, or as `2026-01-02 03:04:05 UTC`. Events tell whole
/// seconds, so that all others are cut to them: what the API tells must not seem later than an event
/// of the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(super) struct Instant(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = text.parse::<Timestamp>().or_else(|error| {
            let civil = text.strip_suffix(" UTC").ok_or(error)?;
            Ok(civil.parse::<DateTime>()?.to_zoned(TimeZone::UTC)?.timestamp())
        });
        let read = read.map_err(|error: jiff::Error| serde::de::Error::custom(error))?;
        let fraction = SignedDuration::from_nanos(i64::from(read.subsec_nanosecond()));
        Ok(Self(read.checked_sub(fraction).unwrap_or(read)))
    }
}

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) username: Arc<str>,
}

/// The name that GitLab shows for an account that is gone.
pub(super) const GHOST: &str = "ghost";

/// What the API tells of a merge request (<https://docs.gitlab.com/api/merge_requests/>).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MergeRequestBody {
    pub(super) iid: u64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    author: Option<Account>,
    #[serde(default)]
    draft: bool,
    state: String,
    source_branch: String,
    target_branch: String,
    /// Not there once the project is gone.
    #[serde(default)]
    pub(super) source_project_id: Option<u64>,
    pub(super) target_project_id: u64,
    /// The head. Not there while GitLab has not looked at the source branch yet.
    #[serde(default)]
    sha: Option<CommitId>,
    #[serde(default)]
    labels: Vec<Arc<str>>,
    #[serde(default)]
    web_url: Option<String>,
    pub(super) updated_at: Instant,
    /// Not told in lists.
    #[serde(default)]
    diff_refs: Option<DiffRefs>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DiffRefs {
    /// Where the target branch stood when the head was pushed.
    #[serde(default)]
    start_sha: Option<CommitId>,
}

impl MergeRequestBody {
    pub(super) fn source_branch(&self) -> &str {
        &self.source_branch
    }

    /// Whether it is open, and that commit is its head.
    pub(super) fn is_open_at(&self, commit: &CommitId) -> bool {
        state(&self.state) == PullRequestState::Open && self.sha.as_ref() == Some(commit)
    }

    /// The pull request. Without a head it is none yet.
    pub(super) fn into_pull_request(self) -> Option<PullRequest> {
        let base = self.diff_refs.and_then(|refs| refs.start_sha).unwrap_or_else(CommitId::null);
        Some(PullRequest {
            number: self.iid,
            title: self.title,
            author: self.author.map_or_else(|| GHOST.into(), |author| author.username),
            draft: self.draft,
            state: state(&self.state),
            head: Revision::new(self.sha?, format!("refs/heads/{}", self.source_branch)),
            base: Revision::new(base, format!("refs/heads/{}", self.target_branch)),
            fork: self.source_project_id != Some(self.target_project_id),
            labels: sorted(self.labels),
            url: self.web_url,
            updated_at: self.updated_at.0,
        })
    }
}

/// One that is being merged (`locked`) is open yet.
fn state(text: &str) -> PullRequestState {
    match text {
        "merged" => PullRequestState::Merged,
        "closed" => PullRequestState::Closed,
        _ => PullRequestState::Open,
    }
}

fn sorted(mut labels: Vec<Arc<str>>) -> Vec<Arc<str>> {
    labels.sort();
    labels.dedup();
    labels
}

/// What events tell of a merge request
/// (<https://docs.gitlab.com/user/project/integrations/webhook_events/#merge-request-events>). Who made
/// it is a number, and where the target branch stands is not told.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct MergeRequestEvent {
    iid: u64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    draft: Option<bool>,
    /// As older versions call it.
    #[serde(default)]
    work_in_progress: Option<bool>,
    state: String,
    source_branch: String,
    target_branch: String,
    #[serde(default)]
    source_project_id: Option<u64>,
    target_project_id: u64,
    last_commit: LastCommit,
    #[serde(default)]
    labels: Vec<LabelEvent>,
    #[serde(default)]
    url: Option<String>,
    updated_at: Instant,
}

#[derive(Debug, Clone, Deserialize)]
struct LastCommit {
    id: CommitId,
}

/// A label as events tell it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LabelEvent {
    pub(super) title: Arc<str>,
}

impl MergeRequestEvent {
    /// The pull request, as far as it is told.
    pub(super) fn into_pull_request(self) -> PullRequest {
        PullRequest {
            number: self.iid,
            title: self.title,
            author: GHOST.into(),
            draft: self.draft.or(self.work_in_progress).unwrap_or(false),
            state: state(&self.state),
            head: Revision::new(self.last_commit.id, format!("refs/heads/{}", self.source_branch)),
            base: Revision::new(CommitId::null(), format!("refs/heads/{}", self.target_branch)),
            fork: self.source_project_id != Some(self.target_project_id),
            labels: sorted(self.labels.into_iter().map(|label| label.title).collect()),
            url: self.url,
            updated_at: self.updated_at.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body() -> Value {
        json!({
            "iid": 7, "title": "Add a thing", "author": {"username": "ada"}, "draft": true,
            "state": "opened", "source_branch": "feature/x", "target_branch": "main",
            "source_project_id": 2, "target_project_id": 1, "sha": "1".repeat(40),
            "labels": ["large", "bug"], "updated_at": "2026-01-02T03:04:05.678+01:00",
            "diff_refs": {"base_sha": "3".repeat(40), "start_sha": "2".repeat(40)},
        })
    }

    fn read(body: Value) -> PullRequest {
        serde_json::from_value::<MergeRequestBody>(body).unwrap().into_pull_request().unwrap()
    }

    #[test]
    fn a_merge_request_is_read_whole() {
        let read = read(body());
        assert_eq!(read.head.reference.as_ref(), "refs/heads/feature/x");
        assert_eq!((read.base.sha.as_str(), &*read.author), ("2".repeat(40).as_str(), "ada"));
        assert_eq!(read.labels, ["bug".into(), "large".into()]);
        assert!(read.fork && read.draft);
        assert_eq!(read.state, PullRequestState::Open);
        assert_eq!(read.updated_at.to_string(), "2026-01-02T02:04:05Z");
    }

    #[test]
    fn what_is_gone_or_not_told_is_said_so() {
        let mut body = body();
        body["author"] = Value::Null;
        body["source_project_id"] = Value::Null;
        body["diff_refs"] = Value::Null;
        let read = read(body.clone());
        assert_eq!(&*read.author, "ghost");
        assert!(read.fork && read.base.sha.is_null());
        body["sha"] = Value::Null;
        let read: MergeRequestBody = serde_json::from_value(body).unwrap();
        assert_eq!(read.into_pull_request(), None);
    }

    #[test]
    fn instants_are_read_in_both_forms() {
        let read = |text: &str| serde_json::from_value::<Instant>(text.into()).map(|one| one.0);
        assert_eq!(
            read("2015-05-17 18:21:36 UTC").unwrap(),
            "2015-05-17T18:21:36Z".parse().unwrap()
        );
        assert_eq!(read("2015-05-17T18:21:36Z").unwrap(), "2015-05-17T18:21:36Z".parse().unwrap());
        for wrong in ["", "now", "2015-05-17 18:21:36", "2015-99-17 18:21:36 UTC"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn states_are_told_apart() {
        for (text, expected) in [
            ("opened", PullRequestState::Open),
            ("locked", PullRequestState::Open),
            ("closed", PullRequestState::Closed),
            ("merged", PullRequestState::Merged),
        ] {
            let mut body = body();
            body["state"] = text.into();
            assert_eq!(read(body).state, expected, "{text}");
        }
    }
}
