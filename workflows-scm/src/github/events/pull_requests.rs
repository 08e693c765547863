//! Changes of pull requests.

use serde_json::Value;
use workflows_core::{
    Result, SubjectClaim,
    event::{LabelClaim, PullRequestClaim},
};

use super::{claim, nothing};
use crate::{
    github::pull_request::{Label, PullRequestBody},
    webhook::{Payload, Told},
};

/// Reads `pull_request`. What was done is found by comparing with what is recorded, so that the
/// action only tells whether to look.
pub(super) fn changed(action: &str, payload: &Payload<'_>) -> Result<Told> {
    match action {
        "opened" | "reopened" | "synchronize" | "closed" | "ready_for_review"
        | "converted_to_draft" => whole(payload),
        "edited" if retargeted(payload)? => whole(payload),
        "edited" => Ok(nothing("its title or text was edited")),
        "labeled" => labeled(payload, true),
        "unlabeled" => labeled(payload, false),
        _ => Ok(nothing("it changed nothing that a workflow can wait for")),
    }
}

fn whole(payload: &Payload<'_>) -> Result<Told> {
    let pull_request = payload.required::<PullRequestBody>("pull_request")?.into_pull_request()?;
    Ok(claim(SubjectClaim::PullRequest(Box::new(PullRequestClaim { pull_request }))))
}

fn retargeted(payload: &Payload<'_>) -> Result<bool> {
    let changes: Option<Value> = payload.optional("changes")?;
    Ok(changes.is_some_and(|changes| changes.get("base").is_some()))
}

fn labeled(payload: &Payload<'_>, present: bool) -> Result<Told> {
    // A label that was removed from the repository as a whole may come without its name.
    let Some(label) = payload.optional::<Label>("label")? else {
        return Ok(nothing("it does not say which label"));
    };
    let pull_request = payload.required::<PullRequestBody>("pull_request")?.into_pull_request()?;
    let label = label.name;
    Ok(claim(SubjectClaim::Label(Box::new(LabelClaim { pull_request, label, present }))))
}
