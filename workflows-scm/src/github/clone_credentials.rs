//! What a run may clone with.

use async_trait::async_trait;
use jiff::SignedDuration;
use workflows_core::{
    Error, ErrorKind, Result,
    repo::{CloneCredential, CloneCredentials},
};

use super::{
    authorization::{InstallationToken, Scope, TokenRequest},
    connection::GitHubRepository,
};

/// No token is handed out with less left.
const SHORTEST: SignedDuration = SignedDuration::from_mins(5);
/// GitHub's tokens end after an hour, however long a run is: one that has so much left is not minted
/// again.
const AS_GOOD_AS_NEW: SignedDuration = SignedDuration::from_mins(50);
/// The name that goes with a token.
const USERNAME: &str = "x-access-token";

/// With an App: a token of the installation that can read the contents of this repository and
/// nothing else, and ends after an hour at the latest. With a token: the one that the driver was
/// told to hand out ([`clone_token`](super::GitHubDriverBuilder::clone_token)); without that there
/// is none, for the driver's own can do too much.
#[async_trait]
impl CloneCredentials for GitHubRepository {
    async fn mint(&self, for_at_least: SignedDuration) -> Result<CloneCredential> {
        const OPERATION: &str = "mint a clone credential";
        let authorizer = self.api.authorizer();
        if let Some(token) = authorizer.clone_token().await? {
            return Ok(CloneCredential { username: USERNAME.to_owned(), token, expires_at: None });
        }
        if !self.is_app() {
            return Err(Error::unsupported(
                OPERATION,
                "the driver's own token is not handed out; configure a clone token that can only \
                 read, or use a GitHub App",
            )
            .with("repository", &self.path));
        }
        // Held while one is minted: a burst of runs asks for one.
        let mut minted = self.minted.lock().await;
        let now = self.api.now();
        let wanted = for_at_least.clamp(SHORTEST, AS_GOOD_AS_NEW);
        let is_good = |token: &&InstallationToken| token.expires_at.duration_since(now) >= wanted;
        let token = match minted.as_ref().filter(is_good) {
            Some(token) => token.clone(),
            None => {
                let request = TokenRequest {
                    repository_ids: vec![self.number],
                    permissions: [("contents", "read")].into(),
                };
                let scope = Scope::Repo(self.path.clone());
                let token =
                    authorizer.narrowed(&scope, &request).await.map_err(|error| {
                        match error.kind() {
                            ErrorKind::Invalid => Error::denied(
                                OPERATION,
                                "the App may not read this repository's contents; give it the \
                                 permission `contents: read` and accept it for the installation",
                            )
                            .with("repository", &self.path)
                            .caused_by(error),
                            _ => error,
                        }
                    })?;
                *minted = Some(token.clone());
                token
            }
        };
        Ok(CloneCredential {
            username: USERNAME.to_owned(),
            token: token.token,
            expires_at: Some(token.expires_at),
        })
    }
}
