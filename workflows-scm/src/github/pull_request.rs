//! Pull requests as GitHub writes them, in its REST API and in its events.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Result,
    event::{PullRequest, PullRequestState, Revision},
};

/// What is read of a pull request
/// (<https://docs.github.com/en/rest/pulls/pulls#get-a-pull-request>).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PullRequestBody {
    number: u64,
    #[serde(default)]
    title: Option<String>,
    /// `null` once the account is gone.
    #[serde(default)]
    user: Option<Account>,
    /// Not told in every event.
    #[serde(default)]
    draft: Option<bool>,
    state: String,
    /// Not told in listings; there `merged_at` is.
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_at: Option<Timestamp>,
    head: Side,
    base: Side,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    html_url: Option<String>,
    updated_at: Timestamp,
}

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) login: Arc<str>,
}

/// The name that GitHub shows for an account that is gone.
pub(crate) const GHOST: &str = "ghost";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    reference: String,
    sha: String,
    /// `null` once the repository is gone.
    #[serde(default)]
    repo: Option<SideRepo>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SideRepo {
    id: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) name: Arc<str>,
}

impl PullRequestBody {
    /// Whether it says if the pull request is a draft. Events about comments on lines do not.
    pub(crate) fn tells_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// The pull request.
    ///
    /// # Errors
    ///
    /// `Invalid` when a commit id is none.
    pub(crate) fn into_pull_request(self) -> Result<PullRequest> {
        // A head whose repository is gone was in another one: this one is there.
        let fork = match (&self.head.repo, &self.base.repo) {
            (Some(head), Some(base)) => head.id != base.id,
            _ => true,
        };
        let state = match (self.state.as_str(), self.merged, self.merged_at) {
            ("open", ..) => PullRequestState::Open,
            (_, Some(true), _) | (_, None, Some(_)) => PullRequestState::Merged,
            _ => PullRequestState::Closed,
        };
        let mut labels: Vec<Arc<str>> = self.labels.into_iter().map(|label| label.name).collect();
        labels.sort();
        labels.dedup();
        Ok(PullRequest {
            number: self.number,
            title: self.title.unwrap_or_default(),
            author: self.user.map_or_else(|| GHOST.into(), |user| user.login),
            draft: self.draft.unwrap_or(false),
            state,
            head: self.head.into_revision()?,
            base: self.base.into_revision()?,
            fork,
            labels,
            url: self.html_url,
            updated_at: self.updated_at,
        })
    }
}

impl Side {
    fn into_revision(self) -> Result<Revision> {
        Ok(Revision::new(self.sha.parse()?, format!("refs/heads/{}", self.reference)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body() -> Value {
        json!({
            "number": 7, "title": "Add a thing", "user": {"login": "ada"}, "draft": true,
            "state": "open", "merged": false, "merged_at": null,
            "head": {"ref": "feature/x", "sha": "1".repeat(40), "repo": {"id": 2}},
            "base": {"ref": "main", "sha": "2".repeat(40), "repo": {"id": 1}},
            "labels": [{"name": "large"}, {"name": "bug"}],
            "html_url": "https://github.com/acme/api/pull/7", "updated_at": "2026-01-02T03:04:05Z",
        })
    }

    fn read(body: Value) -> PullRequest {
        serde_json::from_value::<PullRequestBody>(body).unwrap().into_pull_request().unwrap()
    }

    #[test]
    fn a_pull_request_is_read_whole() {
        let read = read(body());
        assert_eq!(read.head.reference.as_ref(), "refs/heads/feature/x");
        assert_eq!(read.base.reference.as_ref(), "refs/heads/main");
        assert_eq!(read.labels, ["bug".into(), "large".into()]);
        assert!(read.fork && read.draft);
        assert_eq!(read.state, PullRequestState::Open);
    }

    #[test]
    fn what_is_gone_is_null() {
        let mut body = body();
        body["user"] = Value::Null;
        body["head"]["repo"] = Value::Null;
        let read = read(body);
        assert_eq!(&*read.author, "ghost");
        assert!(read.fork, "the head's repository is gone, so it was another one");
    }

    #[test]
    fn events_and_listings_tell_a_merge_in_different_ways() {
        let state = |merged: Value, at: Value| {
            let mut body = body();
            body["state"] = "closed".into();
            body["merged"] = merged;
            body["merged_at"] = at;
            read(body).state
        };
        let at: Value = "2026-01-02T03:04:05Z".into();
        assert_eq!(state(Value::Null, at.clone()), PullRequestState::Merged);
        assert_eq!(state(true.into(), at), PullRequestState::Merged);
        assert_eq!(state(false.into(), Value::Null), PullRequestState::Closed);
        assert_eq!(state(Value::Null, Value::Null), PullRequestState::Closed);
    }
}
