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

fn reported(said: &Said) -> Result<ReportedStatus> {
    let id = serde_json::to_string(said).map_err(|error| {
        Error::invalid(OPERATION, "what was said cannot be written").caused_by(error)
    })?;
    Ok(ReportedStatus { id, link: None })
}
