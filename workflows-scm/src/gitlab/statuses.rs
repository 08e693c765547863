//! Commit statuses (<https://docs.gitlab.com/api/commits/#commit-status>).
//!
//! GitLab hangs a status on a pipeline, which belongs to a ref of a project: a merge request shows those
//! of its source branch in its source project, which for a fork is another one. So where a status goes
//! is asked for once for each commit. A status goes from `pending` to `running` to an end and never
//! back, and GitLab refuses to set the state that it has; once at an end, the next one of its name is
//! another status, which is what another attempt makes.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Result, hash_of,
    repo::{EarlierReport, ReportedStatus, Status, StatusReporter, StatusState},
};

use super::{
    connection::{GitLabProject, route_of},
    merge_request::MergeRequestBody,
};
use crate::rest::{
    Priority,
    text::{cut_characters, web_address},
};

const OPERATION: &str = "show a commit status";
/// In characters.
const DESCRIPTION: usize = 255;

/// Where the statuses of a commit go, the best place first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<At>);

/// A ref of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct At {
    project: u64,
    /// GitLab chooses a branch that has the commit when there is none.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// What was said so far; the engine keeps its JSON form.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    at: At,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<u64>,
    state: State,
    digest: String,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    state: State,
    name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline_id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    status: State,
    #[serde(default)]
    pipeline_id: Option<u64>,
}

/// The states of GitLab that are used here, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// What has been made and has no state yet.
    Created,
    Pending,
    Running,
    Success,
    Failed,
    Canceled,
    /// What this driver never sets.
    #[serde(other)]
    Other,
}

impl State {
    fn is_end(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Canceled)
    }

    /// Whether a status in this state shows what another state would, or what comes after it.
    fn is_at_or_past(self, wanted: Self) -> bool {
        if wanted.is_end() { self == wanted } else { self >= wanted && self != Self::Other }
    }
}

/// Who waits for an approval is `pending`, with the description saying for whom. What did not have to
/// run is a success, as it is for a required check elsewhere, with the description saying so: GitLab's
/// own `skipped` lets a merge request wait for ever where pipelines must succeed.
fn state(state: StatusState) -> State {
    match state {
        StatusState::Success | StatusState::Neutral => State::Success,
        StatusState::Failure | StatusState::TimedOut => State::Failed,
        StatusState::Cancelled => State::Canceled,
        StatusState::InProgress => State::Running,
        other if other.is_final() => State::Failed,
        _ => State::Pending,
    }
}

#[async_trait]
impl StatusReporter for GitLabProject {
    async fn report(&self, status: &Status, earlier: EarlierReport<'_>) -> Result<ReportedStatus> {
        let wanted = state(status.state);
        let description = cut_characters(&status.title, DESCRIPTION);
        let target_url = web_address(status.link.as_deref());
        let digest = hash_of(&[
            &format!("{wanted:?}"),
            description,
            target_url.unwrap_or_default(),
            &status.external_id,
        ]);
        let said: Option<Said> = earlier.id.and_then(|id| serde_json::from_str(id).ok());
        if let Some(said) = &said {
            let says_it = said.digest == digest && !earlier.may_have_reached;
            // Only the text of what goes on would be another one, which GitLab does not take.
            let is_progress = said.state == State::Running && wanted == State::Running;
            if says_it || is_progress {
                return reported(said);
            }
        }
        let place = match &said {
            Some(said) => Arc::new(Place(vec![said.at.clone()])),
            None => self.place(status).await?,
        };
        let mut refused = None;
        for at in &place.0 {
            let body = Body {
                state: wanted,
                name: &status.context,
                description,
                target_url,
                reference: at.reference.as_deref(),
                pipeline_id: said.as_ref().and_then(|said| said.pipeline),
            };
            match self.show(status, at, &body).await {
                Ok(pipeline) => {
                    let said = Said { at: at.clone(), pipeline, state: wanted, digest };
                    return reported(&said);
                }
                // In the project of a fork the token's user may be a stranger.
                Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::not_found(OPERATION, "there is no place for it")))
    }
}

impl GitLabProject {
    /// Where the statuses of a commit go: the source of a merge request whose head it is; else this
    /// project.
    async fn place(&self, status: &Status) -> Result<Arc<Place>> {
        let key = (self.number, status.commit.clone());
        let find = async {
            let route =
                self.route(["repository", "commits", status.commit.as_str(), "merge_requests"]);
            let client = self.client(Priority::Status);
            let found: Vec<MergeRequestBody> = match client.get(OPERATION, &route).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                found => found?,
            };
            let here = At { project: self.number, reference: None };
            let of_head = found.iter().find(|one| one.is_open_at(&status.commit));
            let Some(one) = of_head else { return Ok(Arc::new(Place(vec![here]))) };
            let source = one.source_project_id.unwrap_or(self.number);
            let first = At { project: source, reference: Some(one.source_branch().to_owned()) };
            // GitLab keeps the head of a merge request from a fork under a ref of its own.
            let second = (source != self.number).then(|| At {
                project: self.number,
                reference: Some(format!("refs/merge-requests/{}/head", one.iid)),
            });
            Ok(Arc::new(Place([first].into_iter().chain(second).collect())))
        };
        self.seen.places.try_get_with(key, find).await.map_err(crate::repeated::repeated)
    }

    /// Makes GitLab show a status. Returns its pipeline.
    async fn show(&self, status: &Status, at: &At, body: &Body<'_>) -> Result<Option<u64>> {
        let client = self.client(Priority::Status);
        let route = route_of(at.project, ["statuses", status.commit.as_str()]);
        let refused = match client.post::<Shown>(OPERATION, &route, body).await {
            Ok(shown) => return Ok(shown.pipeline_id.or(body.pipeline_id)),
            Err(error) => error,
        };
        let text = refused.to_string();
        if refused.kind() != ErrorKind::Invalid || !text.contains("Cannot transition") {
            return Err(refused);
        }
        let mut route =
            route_of(at.project, ["repository", "commits", status.commit.as_str(), "statuses"])
                .query("name", &status.context)
                .query("order_by", "id")
                .query("sort", "desc")
                .query("per_page", 1);
        if let Some(reference) = body.reference {
            route = route.query("ref", reference);
        }
        if let Some(pipeline) = body.pipeline_id {
            route = route.query("pipeline_id", pipeline);
        }
        let present: Vec<Shown> = client.get(OPERATION, &route).await?;
        match present.first() {
            Some(present) if present.status.is_at_or_past(body.state) => {
                Ok(present.pipeline_id.or(body.pipeline_id))
            }
            _ => Err(Error::new(
                ErrorKind::Conflict,
                OPERATION,
                "GitLab shows another state, from which the wanted one is not reached",
            )
            .with("context", &status.context)
            .caused_by(refused)),
        }
    }
}

fn reported(said: &Said) -> Result<ReportedStatus> {
    let id = serde_json::to_string(said).map_err(|error| {
        Error::invalid(OPERATION, "what was said cannot be written").caused_by(error)
    })?;
    Ok(ReportedStatus { id, link: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_the_wanted_state_or_what_comes_after_it_will_do() {
        use State::*;
        for (present, wanted, will_do) in [
            (Pending, Pending, true),
            (Running, Pending, true),
            (Success, Pending, true),
            (Pending, Running, false),
            (Created, Pending, false),
            (Failed, Running, true),
            (Success, Success, true),
            (Failed, Success, false),
            (Success, Failed, false),
            (Canceled, Failed, false),
            (Running, Success, false),
            (Other, Pending, false),
        ] {
            assert_eq!(present.is_at_or_past(wanted), will_do, "{present:?} for {wanted:?}");
        }
    }

    #[test]
    fn states_are_mapped_honestly() {
        for (ours, theirs) in [
            (StatusState::Queued, "pending"),
            (StatusState::ActionRequired, "pending"),
            (StatusState::InProgress, "running"),
            (StatusState::Success, "success"),
            (StatusState::Neutral, "success"),
            (StatusState::Failure, "failed"),
            (StatusState::TimedOut, "failed"),
            (StatusState::Cancelled, "canceled"),
        ] {
            assert_eq!(serde_json::to_value(state(ours)).unwrap(), theirs, "{ours:?}");
        }
    }
}
