//! Pull requests through the API.

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt, future,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use workflows_core::{Result, event::PullRequest, repo::PullRequests};

use super::{connection::GitHubRepository, pull_request::PullRequestBody};
use crate::rest::Priority;

/// So many pull requests are asked for first. What is read of so many is kept for each repository that
/// is polled.
const FEW: u32 = 5;

#[async_trait]
impl PullRequests for GitHubRepository {
    async fn get(&self, number: u64) -> Result<PullRequest> {
        let route = self.route(["pulls", &number.to_string()]);
        let client = self.client(Priority::Fetch);
        let what = format!("pull request {number}");
        let read = self.settled(&what, async || {
            client.get::<PullRequestBody>("read pull request", &route).await
        });
        read.await.map_err(|error| error.with("pull request", number))?.into_pull_request()
    }

    /// Pages shift while they are read: a pull request that changes meanwhile moves to the first
    /// page, and pushes others on, so that one can come twice. One that moved away from a page not
    /// yet read is found by the next reading, for its change is later than all that was seen.
    ///
    /// Who looks again and again finds little that changed. So a few are asked for first, always with
    /// the same route, and the list in large pages when those do not reach back far enough.
    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        const OPERATION: &str = "list pull requests";
        let client = self.client(Priority::Poll);
        let of_size = |size: u32| {
            self.route(["pulls"])
                .query("state", "all")
                .query("sort", "updated")
                .query("direction", "desc")
                .query("per_page", size)
        };
        let is_asked_for =
            move |one: &PullRequest| since.is_none_or(|since| one.updated_at >= since);
        let listed = async move {
            let (few, are_more) =
                client.look_at_page::<PullRequestBody>(OPERATION, &of_size(FEW)).await?;
            let few = few.into_iter().map(PullRequestBody::into_pull_request);
            let few: Vec<PullRequest> = few.collect::<Result<_>>()?;
            if !are_more || !few.iter().all(is_asked_for) {
                return Ok(stream::iter(few.into_iter().map(Ok)).boxed());
            }
            let all = match since {
                Some(_) => client.look_at_pages::<PullRequestBody>(OPERATION, of_size(100)),
                None => client.pages(OPERATION, of_size(100)),
            };
            Ok(all.and_then(|body| future::ready(body.into_pull_request())).boxed())
        };
        stream::once(listed)
            .try_flatten()
            .try_take_while(move |found| future::ready(Ok(is_asked_for(found))))
            .boxed()
    }
}
