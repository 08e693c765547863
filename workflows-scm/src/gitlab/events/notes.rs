//! Notes: on a merge request and its lines, on a commit.

use std::sync::Arc;

use serde::Deserialize;
use workflows_core::{
    CommitId, Result, SubjectClaim,
    event::{Comment, Occurrence},
};

use super::{claim, nothing, sender};
use crate::{
    gitlab::{
        comments::ON_COMMIT,
        merge_request::{GHOST, Instant},
    },
    webhook::{Payload, Told},
};

#[derive(Debug, Deserialize)]
struct Note {
    id: u64,
    #[serde(default)]
    note: String,
    #[serde(default)]
    noteable_type: Option<String>,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    commit_id: Option<String>,
    #[serde(default)]
    created_at: Option<Instant>,
}

#[derive(Debug, Deserialize)]
struct Number {
    iid: u64,
}

/// Reads `note`. What is told of the merge request lacks who made it, so that it is fetched when
/// something hangs on the comment. Versions before 16.11 tell no action, and nothing of changed notes.
pub(super) fn note(action: &str, payload: &Payload<'_>) -> Result<Told> {
    if !matches!(action, "create" | "") {
        return Ok(nothing("only a new comment counts"));
    }
    let note: Note = payload.required("object_attributes")?;
    if note.system {
        return Ok(nothing("GitLab wrote it itself"));
    }
    let author: Arc<str> = sender(payload).unwrap_or_else(|| GHOST.into());
    let comment = |id: String| Comment {
        id: id.into(),
        author: Arc::clone(&author),
        body: note.note.clone(),
        command: None,
        arguments: Vec::new(),
    };
    let mut occurrence = match note.noteable_type.as_deref() {
        Some("MergeRequest") => {
            let number = payload.required::<Number>("merge_request")?.iid;
            Occurrence::comment_on(comment(note.id.to_string()), number)
        }
        Some("Commit") => {
            let Some(commit) = note.commit_id.as_deref().and_then(|id| id.parse().ok()) else {
                return Ok(nothing("it does not say on which commit"));
            };
            let commit: CommitId = commit;
            Occurrence::comment_at(comment(format!("{ON_COMMIT}{}", note.id)), &commit)
        }
        _ => return Ok(nothing("it is neither on a merge request nor on a commit")),
    };
    occurrence.occurred_at = note.created_at.map(|at| at.0);
    Ok(claim(SubjectClaim::Occurrence(Box::new(occurrence))))
}
