//! What a GitLab driver shows.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use workflows_core::{Error, Result};

use super::api::{GitLab, Principal};
use crate::rest::{
    Answer, Authorize, HostSecret,
    credentials::{Keyring, present},
};

type Grant = crate::rest::Grant<GitLab>;

/// What a [`GitLabDriver`](super::GitLabDriver) shows to GitLab. One driver has one.
///
/// | token of | reaches | role that is needed to show statuses | to register webhooks |
/// | --- | --- | --- | --- |
/// | a person | what the person can | Developer | Maintainer |
/// | a project | that project | Developer | Maintainer |
/// | a group | the projects of the group and its subgroups | Developer | Maintainer; Owner for the group's own |
/// | none | public projects, read only | – | – |
///
/// The scope is `api`; `read_api` will do where nothing is to be shown or registered.
#[derive(Debug, Clone)]
pub struct GitLabCredentials(pub(super) Option<HostSecret>);

impl GitLabCredentials {
    /// A personal, project or group access token.
    ///
    /// It is asked for at each call, so that a new one is taken up without a restart. GitLab's tokens
    /// expire, most after a year at the latest: [`GitLabWatch`](super::GitLabWatch) tells before.
    pub fn token(token: impl Into<HostSecret>) -> Self {
        Self(Some(token.into()))
    }

    /// No credential: public projects, read only.
    pub fn anonymous() -> Self {
        Self(None)
    }
}

/// Makes grants for calls.
#[derive(Debug)]
pub(crate) struct Authorizer {
    token: Option<HostSecret>,
    keyring: Option<Keyring>,
    clone_token: Option<HostSecret>,
    shown: Mutex<Shown>,
}

/// The token that was shown last, and how often it was another one.
#[derive(Debug, Default)]
struct Shown {
    token: Option<SecretString>,
    generation: u64,
}

impl Authorizer {
    pub(super) fn new(
        token: Option<HostSecret>,
        keyring: Option<Keyring>,
        clone_token: Option<HostSecret>,
    ) -> Self {
        Self { token, keyring, clone_token, shown: Mutex::default() }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.token.is_none()
    }

    pub(super) fn has_clone_token(&self) -> bool {
        self.clone_token.is_some()
    }

    /// The token that was configured for runs to clone with.
    pub(super) async fn clone_token(&self) -> Result<Option<SecretString>> {
        match &self.clone_token {
            Some(token) => present(token, self.keyring.as_ref()).await.map(Some),
            None => Ok(None),
        }
    }
}

#[async_trait]
impl Authorize<GitLab> for Authorizer {
    async fn grant(&self, (): &()) -> Result<Grant> {
        let Some(token) = &self.token else {
            let principal = Principal::Anonymous;
            return Ok(Grant { principal, generation: 0, authorization: None });
        };
        let value = present(token, self.keyring.as_ref()).await?;
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", value.expose_secret().trim())).map_err(
                |_| {
                    Error::invalid(
                        "call GitLab",
                        "the token cannot be a header; does it hold a line break?",
                    )
                },
            )?;
        authorization.set_sensitive(true);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shown = shown
            .token
            .as_ref()
            .is_some_and(|shown| shown.expose_secret() == value.expose_secret());
        if !is_shown {
            shown.token = Some(value);
            shown.generation += 1;
        }
        Ok(Grant {
            principal: Principal::Token,
            generation: shown.generation,
            authorization: Some(authorization),
        })
    }

    /// The secret store may have another token by now.
    async fn refused(&self, refused: &Grant, _: &Answer) -> bool {
        let now = self.grant(&()).await;
        now.is_ok_and(|now| now.generation != refused.generation)
    }
}
