//! What a run may clone with.

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    Error, Result,
    repo::{CloneCredential, CloneCredentials},
};

use super::connection::GitLabProject;

/// The name that goes with a token; GitLab takes any.
const USERNAME: &str = "oauth2";

/// The token that the driver was told to hand out
/// ([`clone_token`](super::GitLabDriverBuilder::clone_token)). GitLab mints no token for a few hours that
/// reads one project and nothing else, and the driver's own can do too much.
#[async_trait]
impl CloneCredentials for GitLabProject {
    async fn mint(&self, _: SignedDuration) -> Result<CloneCredential> {
        let token = self.api.authorizer().clone_token().await?.ok_or_else(|| {
            Error::unsupported(
                "mint a clone credential",
                "the driver's own token is not handed out; configure a clone token that can only \
                 read repositories",
            )
            .with("repository", &self.path)
        })?;
        Ok(CloneCredential { username: USERNAME.to_owned(), token, expires_at: None })
    }
}
