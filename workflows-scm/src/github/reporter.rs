//! Who shows statuses: check runs with an App, commit statuses with a token.

use async_trait::async_trait;
use workflows_core::{
    Result,
    repo::{EarlierReport, ReportedStatus, Status, StatusReporter},
};

use super::{checks, commit_statuses, connection::GitHubRepository};

#[async_trait]
impl StatusReporter for GitHubRepository {
    async fn report(&self, status: &Status, earlier: EarlierReport<'_>) -> Result<ReportedStatus> {
        if self.is_app() {
            checks::report(self, status, earlier).await
        } else {
            commit_statuses::report(self, status, earlier).await
        }
    }
}
