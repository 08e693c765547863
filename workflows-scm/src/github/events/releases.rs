//! Events that happen once and have kinds of their own: merge groups, releases, dispatches.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use workflows_core::{
    CommitId, DeliveryId, Result, SubjectClaim,
    event::{EventKind, Lacks, Occurrence, Revision},
};

use super::{claim, nothing};
use crate::webhook::{Payload, Told};

/// Reads `merge_group.checks_requested`: an event of the kind `merge_group`, for the commit of the
/// group. `data` has `base_ref` and `base_sha`.
pub(super) fn merge_group(payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Group {
        head_sha: CommitId,
        head_ref: Arc<str>,
        base_sha: CommitId,
        base_ref: Arc<str>,
    }
    let group: Group = payload.required("merge_group")?;
    let kind = EventKind::new("merge_group");
    let mut occurrence = Occurrence::new(kind, group.head_sha.as_str());
    occurrence.actions = vec!["checks_requested".into()];
    occurrence.head = Some(Revision::new(group.head_sha, group.head_ref));
    occurrence.data.insert("base_ref".to_owned(), json!(group.base_ref));
    occurrence.data.insert("base_sha".to_owned(), json!(group.base_sha));
    Ok(claim(SubjectClaim::Occurrence(Box::new(occurrence))))
}

/// Reads `release`: an event of the kind `release` with GitHub's own actions, for the commit that
/// its tag marks. `data` has `tag`, `name`, `prerelease`.
pub(super) fn release(action: &str, payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Release {
        id: u64,
        tag_name: String,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        draft: bool,
        #[serde(default)]
        prerelease: bool,
        #[serde(default)]
        published_at: Option<Timestamp>,
    }
    if !matches!(action, "published" | "released" | "prereleased") {
        return Ok(nothing("only a release that is published can be built"));
    }
    let release: Release = payload.required("release")?;
    if release.draft {
        return Ok(nothing("the release is a draft, and its tag may not be there"));
    }
    // One that was unpublished can be published again.
    let at = release.published_at.map_or_else(String::new, |at| format!("/{at}"));
    let id = format!("{}/{action}{at}", release.id);
    let mut occurrence = Occurrence::new(EventKind::new("release"), id);
    occurrence.actions = vec![action.into()];
    occurrence.lacks =
        Some(Lacks::Commit { reference: format!("refs/tags/{}", release.tag_name).into() });
    occurrence.occurred_at = release.published_at;
    occurrence.data.insert("tag".to_owned(), release.tag_name.into());
    occurrence.data.insert("name".to_owned(), json!(release.name));
    occurrence.data.insert("prerelease".to_owned(), release.prerelease.into());
    Ok(claim(SubjectClaim::Occurrence(Box::new(occurrence))))
}

/// Reads `repository_dispatch`: an event of the kind `repository_dispatch` whose action is the type
/// that the sender chose, for the default branch. `data.payload` is what the sender gave.
pub(super) fn dispatch(action: &str, id: &DeliveryId, payload: &Payload<'_>) -> Result<Told> {
    let branch: String = payload.required("branch")?;
    let given: Option<Value> = payload.optional("client_payload")?;
    let kind = EventKind::new("repository_dispatch");
    let mut occurrence = Occurrence::new(kind, id.as_str());
    occurrence.actions = vec![action.into()];
    occurrence.lacks = Some(Lacks::Commit { reference: format!("refs/heads/{branch}").into() });
    occurrence.data.insert("payload".to_owned(), given.unwrap_or(Value::Null));
    Ok(claim(SubjectClaim::Occurrence(Box::new(occurrence))))
}
