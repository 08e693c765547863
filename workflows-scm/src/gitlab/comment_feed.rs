//! Notes on merge requests as they come, for polling.

use futures::{StreamExt, TryStreamExt, future, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Result,
    event::Comment,
    repo::{CommentFeed, FoundComment, PullRequests},
};

use super::{
    connection::GitLabProject,
    merge_request::{Account, GHOST, Instant},
};
use crate::rest::Priority;

/// How many merge requests are looked through together.
const TOGETHER: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    id: u64,
    #[serde(default)]
    author: Option<Account>,
    #[serde(default)]
    body: String,
    created_at: Instant,
    updated_at: Instant,
    /// Whether GitLab wrote it itself.
    #[serde(default)]
    system: bool,
}

impl Written {
    fn found(self, pull_request: u64) -> Option<FoundComment> {
        let comment = Comment {
            id: self.id.to_string().into(),
            author: self.author.map_or_else(|| GHOST.into(), |author| author.username),
            body: self.body,
            command: None,
            arguments: Vec::new(),
        };
        let (created_at, updated_at) = (self.created_at.0, self.updated_at.0);
        let found = FoundComment { comment, pull_request, created_at, updated_at };
        (!self.system).then_some(found)
    }
}

/// GitLab lists notes for each merge request; a note changes its merge request, so that those are looked
/// through that changed (<https://docs.gitlab.com/api/notes/#list-all-merge-request-notes>).
impl CommentFeed for GitLabProject {
    fn comments_since(&self, since: Timestamp) -> BoxStream<'_, Result<FoundComment>> {
        let of_one = move |number: u64| {
            let route = self
                .notes(number)
                .query("order_by", "updated_at")
                .query("sort", "desc")
                .query("per_page", 100);
            self.client(Priority::Poll)
                .pages::<Written>("list notes", route)
                .try_take_while(move |one| future::ready(Ok(one.updated_at.0 >= since)))
                .try_filter_map(move |one| future::ready(Ok(one.found(number))))
        };
        self.changed_since(Some(since))
            .map_ok(move |changed| of_one(changed.number))
            .try_flatten_unordered(TOGETHER)
            .boxed()
    }
}
