//! Comments on pull requests as they come, for polling.

use std::sync::Arc;

use futures::{
    StreamExt, TryStreamExt, future,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Result,
    event::Comment,
    repo::{CommentFeed, FoundComment},
};

use super::{
    comment_id::CommentId,
    connection::GitHubRepository,
    pull_request::{Account, GHOST},
};
use crate::rest::Priority;

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    id: u64,
    #[serde(default)]
    user: Option<Account>,
    #[serde(default)]
    body: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(default)]
    html_url: String,
    /// Of comments in conversations.
    #[serde(default)]
    issue_url: Option<String>,
    /// Of comments on lines.
    #[serde(default)]
    pull_request_url: Option<String>,
}

impl Written {
    /// The number of the pull request; `None` for a comment on an issue that is none.
    fn pull_request(&self) -> Option<u64> {
        let number = |url: &str| url.rsplit('/').next()?.parse().ok();
        match (&self.pull_request_url, &self.issue_url) {
            (Some(url), _) => number(url),
            (None, Some(url)) if self.html_url.contains("/pull/") => number(url),
            _ => None,
        }
    }

    fn found(self, id: fn(u64) -> CommentId) -> Option<FoundComment> {
        let pull_request = self.pull_request()?;
        let author: Arc<str> = self.user.map_or_else(|| GHOST.into(), |user| user.login);
        let comment = Comment {
            id: id(self.id).to_string().into(),
            author,
            body: self.body.unwrap_or_default(),
            command: None,
            arguments: Vec::new(),
        };
        let (created_at, updated_at) = (self.created_at, self.updated_at);
        Some(FoundComment { comment, pull_request, created_at, updated_at })
    }
}

/// So many of the newest comments are asked for first. Most changes of a pull request are no comment,
/// and GitHub says for nothing that those are the same as before.
const FEW: u32 = 5;

/// Lists the repository's comments in conversations and on lines, oldest change first
/// (<https://docs.github.com/en/rest/issues/comments#list-issue-comments-for-a-repository>,
/// <https://docs.github.com/en/rest/pulls/comments#list-review-comments-in-a-repository>). GitHub has
/// no such list of reviews.
impl CommentFeed for GitHubRepository {
    fn comments_since(&self, since: Timestamp) -> BoxStream<'_, Result<FoundComment>> {
        let in_conversations = self.listed("issues", since, CommentId::Conversation);
        let on_lines = self.listed("pulls", since, CommentId::Line);
        stream::select(in_conversations, on_lines).boxed()
    }
}

impl GitHubRepository {
    fn listed(
        &self,
        of: &'static str,
        since: Timestamp,
        id: fn(u64) -> CommentId,
    ) -> BoxStream<'_, Result<FoundComment>> {
        const OPERATION: &str = "list comments";
        let client = self.client(Priority::Poll);
        let by_change = |direction: &str, size: u32| {
            self.route([of, "comments"])
                .query("sort", "updated")
                .query("direction", direction)
                .query("per_page", size)
        };
        let newest = by_change("desc", FEW);
        let all = by_change("asc", 100).query("since", since.max(Timestamp::UNIX_EPOCH));
        let listed = async move {
            let (mut few, are_more) = client.look_at_page::<Written>(OPERATION, &newest).await?;
            let shown = few.len();
            few.retain(|one| one.updated_at >= since);
            if are_more && few.len() == shown {
                return Ok(client.pages::<Written>(OPERATION, all));
            }
            Ok(stream::iter(few.into_iter().rev().map(Ok)).boxed())
        };
        stream::once(listed)
            .try_flatten()
            .try_filter_map(move |one| future::ready(Ok(one.found(id))))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_on_issues_are_left_out() {
        let written = |html: &str, of: &str| {
            let text = format!(
                r#"{{"id": 5, "user": null, "body": null, "created_at": "2026-01-02T03:04:05Z",
                    "updated_at": "2026-01-02T03:04:05Z", "html_url": "{html}", {of}}}"#
            );
            serde_json::from_str::<Written>(&text).unwrap().found(CommentId::Conversation)
        };
        let of_issue = r#""issue_url": "https://api.github.com/repos/acme/api/issues/7""#;
        let found = written("https://github.com/acme/api/pull/7#issuecomment-5", of_issue).unwrap();
        assert_eq!((found.pull_request, &*found.comment.author), (7, "ghost"));
        assert_eq!(written("https://github.com/acme/api/issues/7#issuecomment-5", of_issue), None);
        let of_pull = r#""pull_request_url": "https://api.github.com/repos/acme/api/pulls/8""#;
        assert_eq!(written("x", of_pull).unwrap().pull_request, 8);
    }
}
