//! Pushes.

use std::sync::Arc;

use serde::Deserialize;
use workflows_core::{
    CommitId, Result, SubjectClaim,
    event::{Before, RefClaim},
};

use super::{claim, nothing};
use crate::webhook::{Payload, Told};

/// Reads `push`.
///
/// What lies between the two commits is not read from the payload, which lists at most some of them
/// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).
pub(super) fn push(payload: &Payload<'_>) -> Result<Told> {
    let name: Arc<str> = payload.required("ref")?;
    if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
        return Ok(nothing("the ref is neither a branch nor a tag"));
    }
    let before = payload.position("before")?;
    let after = payload.position("after")?;
    let mut push = RefClaim { name, after, before: Before::Was(before), forced: None };
    if push.name.starts_with("refs/tags/") {
        as_tag(&mut push, payload)?;
    } else if push.after.is_some() {
        push.forced = payload.lenient("forced");
    }
    Ok(claim(SubjectClaim::Ref(push)))
}

/// Of an annotated tag, `after` and `before` are the tag's own object. The commit that it marks now
/// is told apart; the one before is what the ledger has.
fn as_tag(push: &mut RefClaim, payload: &Payload<'_>) -> Result<()> {
    #[derive(Deserialize)]
    struct Commit {
        id: CommitId,
    }
    if push.before != Before::Was(None) {
        push.before = Before::Unknown;
    }
    if push.after.is_some()
        && let Some(commit) = payload.optional::<Commit>("head_commit")?
    {
        push.after = Some(commit.id);
    }
    Ok(())
}
