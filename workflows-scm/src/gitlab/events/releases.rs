//! Releases.

use serde::Deserialize;
use serde_json::json;
use workflows_core::{
    CommitId, Result, SubjectClaim,
    event::{EventKind, Occurrence, Revision},
};

use super::{claim, nothing};
use crate::{
    gitlab::merge_request::Instant,
    webhook::{Payload, Told},
};

/// Reads `release`: an event of the kind `release`, with the action `published`, for the commit that its
/// tag marks. `data` has `tag` and `name`.
pub(super) fn release(action: &str, payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Commit {
        id: CommitId,
    }
    if action != "create" {
        return Ok(nothing("only a release that is new can be built"));
    }
    let id: u64 = payload.required("id")?;
    let tag: String = payload.required("tag")?;
    let commit: Commit = payload.required("commit")?;
    let mut occurrence = Occurrence::new(EventKind::new("release"), format!("{id}/published"));
    occurrence.actions = vec!["published".into()];
    occurrence.head = Some(Revision::new(commit.id, format!("refs/tags/{tag}")));
    occurrence.occurred_at = payload.lenient::<Instant>("released_at").map(|at| at.0);
    occurrence.data.insert("tag".to_owned(), tag.into());
    occurrence.data.insert("name".to_owned(), json!(payload.lenient::<String>("name")));
    Ok(claim(SubjectClaim::Occurrence(Box::new(occurrence))))
}
