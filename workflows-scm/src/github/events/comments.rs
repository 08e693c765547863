//! Comments: in a pull request's conversation, on a line of it, with a review, on a commit.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use workflows_core::{
    CommitId, Result, SubjectClaim,
    event::{Comment, Occurrence},
};

use super::{claim, nothing};
use crate::{
    github::{
        comment_id::CommentId,
        pull_request::{Account, GHOST, PullRequestBody},
    },
    webhook::{Payload, Told},
};

/// What all kinds of comments have.
#[derive(Debug, Deserialize)]
struct Body {
    id: u64,
    #[serde(default)]
    user: Option<Account>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    created_at: Option<Timestamp>,
    #[serde(default)]
    submitted_at: Option<Timestamp>,
    #[serde(default)]
    commit_id: Option<CommitId>,
}

impl Body {
    fn into_comment(self, id: impl FnOnce(u64) -> CommentId) -> Comment {
        Comment {
            id: id(self.id).to_string().into(),
            author: self.user.map_or_else(|| GHOST.into(), |user| user.login),
            body: self.body.unwrap_or_default(),
            command: None,
            arguments: Vec::new(),
        }
    }

    fn written_at(&self) -> Option<Timestamp> {
        self.submitted_at.or(self.created_at)
    }
}

/// Reads `issue_comment`: GitHub's pull requests are issues, too. The event has the issue and not the
/// pull request, which is fetched when something hangs on the comment.
pub(super) fn in_conversation(payload: &Payload<'_>) -> Result<Told> {
    #[derive(Deserialize)]
    struct Issue {
        number: u64,
        #[serde(default)]
        pull_request: Option<Value>,
    }
    let issue: Issue = payload.required("issue")?;
    if issue.pull_request.is_none() {
        return Ok(nothing("the issue is no pull request"));
    }
    let body: Body = payload.required("comment")?;
    let at = body.written_at();
    let comment = body.into_comment(CommentId::Conversation);
    Ok(commented(Occurrence::comment_on(comment, issue.number), at))
}

/// Reads `pull_request_review_comment`.
pub(super) fn on_line(payload: &Payload<'_>) -> Result<Told> {
    on_pull_request(payload.required("comment")?, CommentId::Line, payload)
}

/// Reads `pull_request_review`.
pub(super) fn review(payload: &Payload<'_>) -> Result<Told> {
    let body: Body = payload.required("review")?;
    if body.body.as_deref().is_none_or(|text| text.trim().is_empty()) {
        return Ok(nothing("the review has no text"));
    }
    on_pull_request(body, CommentId::Review, payload)
}

fn on_pull_request(
    body: Body,
    id: impl FnOnce(u64) -> CommentId,
    payload: &Payload<'_>,
) -> Result<Told> {
    #[derive(Deserialize)]
    struct Number {
        number: u64,
    }
    let at = body.written_at();
    let comment = body.into_comment(id);
    let number = payload.required::<Number>("pull_request")?.number;
    // What is told with comments on lines lacks whether it is a draft; then it is fetched.
    let told: Option<PullRequestBody> = payload.lenient("pull_request");
    let occurrence = match told.filter(PullRequestBody::tells_draft) {
        Some(body) => Occurrence::comment(comment, body.into_pull_request()?),
        None => Occurrence::comment_on(comment, number),
    };
    Ok(commented(occurrence, at))
}

/// Reads `commit_comment`.
pub(super) fn on_commit(payload: &Payload<'_>) -> Result<Told> {
    let body: Body = payload.required("comment")?;
    let at = body.written_at();
    let Some(commit) = body.commit_id.clone() else {
        return Ok(nothing("it does not say on which commit"));
    };
    let comment = body.into_comment(CommentId::Commit);
    Ok(commented(Occurrence::comment_at(comment, &commit), at))
}

fn commented(mut occurrence: Occurrence, at: Option<Timestamp>) -> Told {
    occurrence.occurred_at = at;
    claim(SubjectClaim::Occurrence(Box::new(occurrence)))
}
