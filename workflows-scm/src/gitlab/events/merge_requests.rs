//! Changes of merge requests.

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;
use workflows_core::{
    Result, SubjectClaim,
    event::{LabelClaim, PullRequestClaim},
};

use crate::{
    gitlab::merge_request::{LabelEvent, MergeRequestEvent},
    webhook::{Payload, Told},
};

/// What was changed besides the merge request as a whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Changes {
    labels: Option<LabelChange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LabelChange {
    previous: Vec<LabelEvent>,
    current: Vec<LabelEvent>,
}

/// Reads `merge_request`. What was done is found by comparing with what is recorded: GitLab calls many
/// things an update, and tells changes that were none.
pub(super) fn changed(payload: &Payload<'_>) -> Result<Told> {
    let told: MergeRequestEvent = payload.required("object_attributes")?;
    let changes: Changes = payload.optional("changes")?.unwrap_or_default();
    let pull_request = told.into_pull_request();
    let mut claims = Vec::new();
    if let Some(change) = changes.labels {
        let names = |labels: Vec<LabelEvent>| -> BTreeSet<Arc<str>> {
            labels.into_iter().map(|label| label.title).collect()
        };
        let (before, now) = (names(change.previous), names(change.current));
        for label in before.symmetric_difference(&now) {
            let label_claim = LabelClaim {
                pull_request: pull_request.clone(),
                label: Arc::clone(label),
                present: now.contains(label),
            };
            claims.push(SubjectClaim::Label(Box::new(label_claim)));
        }
    }
    claims.insert(0, SubjectClaim::PullRequest(Box::new(PullRequestClaim { pull_request })));
    Ok(Told::Claims(claims))
}
