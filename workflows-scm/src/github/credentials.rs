//! What a GitHub driver shows.

use crate::rest::HostSecret;

/// What a [`GitHubDriver`](super::GitHubDriver) shows to GitHub. One driver has one.
///
/// | credential | reads | reports | clone credential for runs | calls an hour (GitHub.com) |
/// | --- | --- | --- | --- | --- |
/// | App | what the App is installed on | check runs | minted, one repository, `contents: read` | 5,000 to 12,500 for each installation |
/// | token | what its owner can | commit statuses | none | 5,000 |
/// | none | public repositories | nothing | none needed | 60 |
#[derive(Debug, Clone)]
pub struct GitHubCredentials(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    App { id: u64, key: HostSecret },
    Token { token: HostSecret },
    Anonymous,
}

impl GitHubCredentials {
    /// A GitHub App: its id, and its private key in PEM. Which installation answers for a repository
    /// is found by asking GitHub, once for each owner.
    ///
    /// The key is asked for whenever a token is to be minted, so that a new one is taken up without
    /// a restart.
    pub fn app(id: u64, key: impl Into<HostSecret>) -> Self {
        Self(Kind::App { id, key: key.into() })
    }

    /// A fine-grained or classic personal access token, or any other that GitHub takes as a bearer.
    ///
    /// It is asked for at each call, so that a new one is taken up without a restart.
    pub fn token(token: impl Into<HostSecret>) -> Self {
        Self(Kind::Token { token: token.into() })
    }

    /// No credential: public repositories, read only, at GitHub's lowest rate limit.
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }
}
