//! Pushes.

use std::sync::Arc;

use serde::Deserialize;
use workflows_core::{
    CommitId, Result, SubjectClaim,
    event::{Before, RefClaim},
};

use super::{OPERATION, claim, nothing};
use crate::webhook::{Payload, Told, position};

/// Reads `push` and `tag_push`. What lies between the two commits is not read from the payload, which
/// lists at most twenty of them, and none of a branch that was made without new ones. Whether a push was
/// forced GitLab does not tell.
pub(super) fn push(payload: &Payload<'_>) -> Result<Told> {
    let name: Arc<str> = payload.required("ref")?;
    let is_tag = name.starts_with("refs/tags/");
    if !is_tag && !name.starts_with("refs/heads/") {
        return Ok(nothing("the ref is neither a branch nor a tag"));
    }
    let before = payload.position("before")?;
    let mut after = payload.position("after")?;
    let mut before = Before::Was(before);
    if is_tag {
        // Of an annotated tag these are the tag's own object. The commit that it marks now is told
        // apart; the one before is what the ledger has.
        if before != Before::Was(None) {
            before = Before::Unknown;
        }
        if after.is_some()
            && let Some(commit) = payload.lenient::<CommitId>("checkout_sha")
        {
            after = Some(commit);
        }
    }
    Ok(claim(SubjectClaim::Ref(RefClaim { name, after, before, forced: None })))
}

/// Reads `repository_update`, which comes once for a push of any number of refs. Tags are left to what
/// looks at them: of an annotated one only its own object is told.
pub(super) fn update(payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Change {
        before: String,
        after: String,
        #[serde(rename = "ref")]
        reference: Arc<str>,
    }
    const MOST: usize = 1_000;
    let changes: Vec<Change> = payload.optional("changes")?.unwrap_or_default();
    let branches = changes.into_iter().filter(|one| one.reference.starts_with("refs/heads/"));
    let claims = branches.take(MOST).map(|one| {
        Ok(SubjectClaim::Ref(RefClaim {
            name: one.reference,
            after: position(OPERATION, "changes.after", &one.after)?,
            before: Before::Was(position(OPERATION, "changes.before", &one.before)?),
            forced: None,
        }))
    });
    let claims: Vec<SubjectClaim> = claims.collect::<Result<_>>()?;
    Ok(if claims.is_empty() { nothing("it changed no branch") } else { Told::Claims(claims) })
}
