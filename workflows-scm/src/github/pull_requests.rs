//! Pull requests through the API.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use workflows_core::{Result, event::PullRequest, repo::PullRequests};

use super::{api::Priority, connection::GitHubRepository, pull_request::PullRequestBody};

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
    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>> {
        let route = self
            .route(["pulls"])
            .query("state", "all")
            .query("sort", "updated")
            .query("direction", "desc")
            .query("per_page", 100);
        let all =
            self.client(Priority::Background).pages::<PullRequestBody>("list pull requests", route);
        all.and_then(|body| std::future::ready(body.into_pull_request()))
            .try_take_while(move |found| {
                std::future::ready(Ok(since.is_none_or(|since| found.updated_at >= since)))
            })
            .boxed()
    }
}
