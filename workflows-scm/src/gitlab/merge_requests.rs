//! Merge requests through the API.

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt, future,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use workflows_core::{Error, Result, event::PullRequest, repo::PullRequests};

use super::{connection::GitLabProject, merge_request::MergeRequestBody};
use crate::rest::{Priority, Route};

const LIST: &str = "list merge requests";
/// So many are asked for first; what is read of so many is kept for each project that is polled.
const FEW: u32 = 5;

/// All merge requests below a route, newest change first.
pub(super) fn newest_first(route: Route, size: u32) -> Route {
    route
        .query("scope", "all")
        .query("state", "all")
        .query("order_by", "updated_at")
        .query("sort", "desc")
        .query("per_page", size)
}

#[async_trait]
impl PullRequests for GitLabProject {
    async fn get(&self, number: u64) -> Result<PullRequest> {
        const OPERATION: &str = "read merge request";
        let route = self.route(["merge_requests", &number.to_string()]);
        let client = self.client(Priority::Fetch);
        let what = format!("merge request {number}");
        let at = |error: Error| error.with("merge request", number);
        let read = self.objects().settled(self.number, &what, async || {
            client.get::<MergeRequestBody>(OPERATION, &route).await
        });
        read.await.map_err(at)?.into_pull_request().ok_or_else(|| {
            at(Error::transient(OPERATION, "GitLab has not looked at its source branch yet"))
        })
    }

    /// Pages shift while they are read, as at GitHub: one that changes meanwhile moves to the first
    /// page and is found by the next reading.
    ///
    /// Who looks again and again finds little that changed. So a few are asked for first, always with
    /// the same route so that GitLab can say that nothing changed, and the list in large pages when
    /// those do not reach back far enough. Where several projects of a group are looked at, the group
    /// is asked for all of them.
    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        let client = self.client(Priority::Poll);
        let of_size = |size| newest_first(self.route(["merge_requests"]), size);
        let is_asked_for =
            move |one: &MergeRequestBody| since.is_none_or(|since| one.updated_at.0 >= since);
        let listed = async move {
            let groups = &self.seen.groups;
            if let Some(since) = since
                && let Some(found) = groups.changed_since(self, since).await?
            {
                return Ok(stream::iter(found.into_iter().map(Ok)).boxed());
            }
            let before = groups.latest(self).await;
            let (few, are_more) =
                client.look_at_page::<MergeRequestBody>(LIST, &of_size(FEW)).await?;
            if !are_more || !few.iter().all(is_asked_for) {
                if let Some(since) = since {
                    groups.told(self, since, before, &few).await;
                }
                return Ok(stream::iter(few.into_iter().map(Ok)).boxed());
            }
            let all = match since {
                Some(_) => client.look_at_pages(LIST, of_size(100)),
                None => client.pages(LIST, of_size(100)),
            };
            Ok(all)
        };
        stream::once(listed)
            .try_flatten()
            .try_take_while(move |found| future::ready(Ok(is_asked_for(found))))
            .try_filter_map(|body| future::ready(Ok(body.into_pull_request())))
            .boxed()
    }

    fn open(&self) -> BoxStream<'_, Result<PullRequest>> {
        let route = self
            .route(["merge_requests"])
            .query("scope", "all")
            .query("state", "opened")
            .query("per_page", 100);
        self.client(Priority::Poll)
            .pages::<MergeRequestBody>(LIST, route)
            .try_filter_map(|body| future::ready(Ok(body.into_pull_request())))
            .boxed()
    }
}
