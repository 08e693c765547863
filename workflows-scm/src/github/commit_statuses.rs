//! Commit statuses, which any credential can write that may push
//! (<https://docs.github.com/en/rest/commits/statuses>).
//!
//! A status is not changed but followed by another of the same context; the newest one shows. So
//! saying the same again changes nothing that people see.

use serde::{Deserialize, Serialize};
use workflows_core::{
    Error, ErrorKind, Result, hash_of,
    repo::{EarlierReport, ReportedStatus, Status, StatusState},
};

use super::{checks::unknown_commit, connection::GitHubRepository};
use crate::rest::{
    Priority,
    text::{cut_characters, web_address},
};

const OPERATION: &str = "show a commit status";
/// In characters.
const DESCRIPTION: usize = 140;
/// GitHub takes 1,000 statuses of one context at one commit. The last ones are left for the ends of
/// further attempts: what only tells of progress is not said any more then.
const FOR_PROGRESS: u32 = 500;

/// What was said so far; the engine keeps its JSON form.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    /// How many statuses of this context were made at the commit.
    count: u32,
    state: String,
    digest: String,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
    description: &'a str,
    context: &'a str,
}

#[derive(Debug, Deserialize)]
struct Made {}

/// A status that shows, or did.
#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    context: String,
    target_url: Option<String>,
}

/// GitHub has four states. A check that did not have to run is a success, as it is for a required
/// check run; what was cancelled is an error.
fn state(state: StatusState) -> &'static str {
    match state {
        StatusState::Success | StatusState::Neutral => "success",
        StatusState::Failure | StatusState::TimedOut => "failure",
        StatusState::Cancelled => "error",
        other if other.is_final() => "error",
        _ => "pending",
    }
}

/// Makes a commit status show a status.
pub(super) async fn report(
    repository: &GitHubRepository,
    status: &Status,
    earlier: EarlierReport<'_>,
) -> Result<ReportedStatus> {
    let body = Body {
        state: state(status.state),
        target_url: web_address(status.link.as_deref()),
        description: cut_characters(&status.title, DESCRIPTION),
        context: &status.context,
    };
    let digest = hash_of(&[
        body.state,
        body.description,
        body.target_url.unwrap_or_default(),
        &status.external_id,
    ]);
    let said: Option<Said> = earlier.id.and_then(|id| serde_json::from_str(id).ok());
    let count = said.as_ref().map_or(0, |said| said.count);
    if let Some(said) = &said {
        let says_it = said.digest == digest && !earlier.may_have_reached;
        let is_progress = said.state == body.state && status.state == StatusState::InProgress;
        if says_it || (is_progress && count >= FOR_PROGRESS) {
            return reported(said);
        }
    }
    if said.is_none() && earlier.may_have_reached && !status.state.is_final() {
        may_go_back(repository, status, &body).await?;
    }
    let route = repository.route(["statuses", status.commit.as_str()]);
    let client = repository.client(Priority::Status);
    let Made {} = client.post(OPERATION, &route, &body).await.map_err(|error| {
        if error.kind() == ErrorKind::Invalid && error.to_string().contains("maximum number") {
            return Error::invalid(
                OPERATION,
                "GitHub takes no more than 1,000 statuses of one name at a commit; push another \
                 commit, or use an App, whose check runs have no such limit",
            )
            .with("context", &status.context)
            .caused_by(error);
        }
        unknown_commit(error)
    })?;
    reported(&Said { count: count.saturating_add(1), state: body.state.to_owned(), digest })
}

/// GitHub shows whatever was said last. Who remembers nothing of what was said looks whether the end of
/// this run was: its link tells them apart.
async fn may_go_back(
    repository: &GitHubRepository,
    status: &Status,
    body: &Body<'_>,
) -> Result<()> {
    let route =
        repository.route(["commits", status.commit.as_str(), "statuses"]).query("per_page", 100);
    let client = repository.client(Priority::Status);
    let shown: Vec<Shown> = client.get(OPERATION, &route).await.map_err(unknown_commit)?;
    let is_end = |one: &Shown| {
        one.context == *status.context
            && one.state != "pending"
            && one.target_url.is_some()
            && one.target_url.as_deref() == body.target_url
    };
    match shown.iter().any(is_end) {
        false => Ok(()),
        true => Err(Error::conflict(OPERATION, "GitHub shows how this run ended")
            .with("context", &status.context)),
    }
}

fn reported(said: &Said) -> Result<ReportedStatus> {
    let id = serde_json::to_string(said).map_err(|error| {
        Error::invalid(OPERATION, "what was said cannot be written").caused_by(error)
    })?;
    Ok(ReportedStatus { id, link: None })
}
