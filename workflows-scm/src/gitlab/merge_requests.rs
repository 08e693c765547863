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

impl GitLabProject {
    /// All merge requests, newest change first.
    fn newest_first(&self, size: u32) -> Route {
        self.route(["merge_requests"])
            .query("scope", "all")
            .query("state", "all")
            .query("order_by", "updated_at")
            .query("sort", "desc")
            .query("per_page", size)
    }
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
    /// those do not reach back far enough.
    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        let client = self.client(Priority::Background);
        let is_asked_for =
            move |one: &MergeRequestBody| since.is_none_or(|since| one.updated_at.0 >= since);
        let listed = async move {
            if since.is_some() {
                let (few, are_more) =
                    client.look_at_page::<MergeRequestBody>(LIST, &self.newest_first(FEW)).await?;
                if !are_more || !few.iter().all(is_asked_for) {
                    return Ok(stream::iter(few.into_iter().map(Ok)).boxed());
                }
            }
            let all = match since {
                Some(_) => client.look_at_pages(LIST, self.newest_first(100)),
                None => client.pages(LIST, self.newest_first(100)),
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
        self.client(Priority::Background)
            .pages::<MergeRequestBody>(LIST, route)
            .try_filter_map(|body| future::ready(Ok(body.into_pull_request())))
            .boxed()
    }
}
