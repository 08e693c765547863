//! Which credential a call is made with: tokens that are asked for, minted and kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use workflows_core::{Error, ErrorKind, Result, SharedClock};

use super::{
    budget::{Cost, Principal, Priority},
    credentials::{GitHubSecret, Keyring, Kind, present},
    route::{RepoPath, Route},
    transport::{Answer, Call, Grant, JSON, Transport, check},
};

/// What a call is about, which tells whose credential it is made with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The App itself: its installations, its deliveries. Needs an App.
    App,
    /// A repository.
    Repo(RepoPath),
    /// An organisation or a user: teams, the organisation's hooks.
    Owner(String),
}

impl Scope {
    fn owner(&self) -> Option<&str> {
        match self {
            Self::App => None,
            Self::Repo(repo) => Some(&repo.owner),
            Self::Owner(owner) => Some(owner),
        }
    }
}

/// A minted token of an installation.
#[derive(Debug, Clone)]
pub(super) struct InstallationToken {
    pub(super) token: SecretString,
    pub(super) expires_at: Timestamp,
}

/// Makes grants for calls. It keeps tokens in memory alone.
#[derive(Debug)]
pub(super) struct Authorizer {
    kind: Kind,
    keyring: Option<Keyring>,
    clock: SharedClock,
    transport: Arc<Transport>,
    /// The installation of each owner, lower-case.
    installations: tokio::sync::Mutex<HashMap<String, u64>>,
    /// The token of each installation; the lock of one is held while it is minted.
    tokens: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<Held>>>>,
    assertion: tokio::sync::Mutex<Held>,
    plain: Mutex<Held>,
    /// By how much GitHub's clock is ahead of ours, once it mattered.
    skew: Mutex<SignedDuration>,
}

/// The present secret of a principal, and how often it was another one.
#[derive(Debug, Default)]
struct Held {
    token: Option<InstallationToken>,
    generation: u64,
}

impl Held {
    fn replace(&mut self, token: InstallationToken) {
        self.token = Some(token);
        self.generation += 1;
    }
}

/// An assertion is valid for so long; GitHub refuses ten minutes and more.
const ASSERTION_LASTS: SignedDuration = SignedDuration::from_mins(9);
/// It is dated back, for clocks that are behind.
const DATED_BACK: SignedDuration = SignedDuration::from_secs(60);
/// What is left of a token when a new one is minted.
const REFRESH_BEFORE: SignedDuration = SignedDuration::from_mins(5);

impl Authorizer {
    pub(super) fn new(
        kind: Kind,
        keyring: Option<Keyring>,
        clock: SharedClock,
        transport: Arc<Transport>,
    ) -> Self {
        Self {
            kind,
            keyring,
            clock,
            transport,
            installations: Default::default(),
            tokens: Default::default(),
            assertion: Default::default(),
            plain: Default::default(),
            skew: Mutex::new(SignedDuration::ZERO),
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The grant for a call about something.
    pub(super) async fn grant(&self, scope: &Scope) -> Result<Grant> {
        match (&self.kind, scope.owner()) {
            (Kind::Anonymous, Some(_)) => {
                Ok(Grant { principal: Principal::Anonymous, generation: 0, authorization: None })
            }
            (Kind::Token { token }, Some(_)) => self.of_token(token).await,
            (Kind::App { id, key }, None) => self.of_app(*id, key).await,
            (Kind::App { .. }, Some(_)) => {
                let installation = self.installation(scope).await?;
                self.of_installation(installation).await
            }
            (_, None) => Err(no_app()),
        }
    }

    async fn of_token(&self, token: &GitHubSecret) -> Result<Grant> {
        let value = present(token, self.keyring.as_ref()).await?;
        let mut held = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = held
            .token
            .as_ref()
            .is_some_and(|known| known.token.expose_secret() == value.expose_secret());
        if !is_known {
            held.replace(InstallationToken { token: value.clone(), expires_at: Timestamp::MAX });
        }
        grant(Principal::Token, held.generation, &value)
    }

    async fn of_app(&self, id: u64, key: &GitHubSecret) -> Result<Grant> {
        let mut held = self.assertion.lock().await;
        let now = self.now_at_github();
        let usable = |token: &&InstallationToken| {
            let left = token.expires_at.duration_since(now);
            left > DATED_BACK && left <= ASSERTION_LASTS
        };
        if let Some(token) = held.token.as_ref().filter(usable) {
            return grant(Principal::App, held.generation, &token.token);
        }
        let pem = present(key, self.keyring.as_ref()).await?;
        let assertion = sign(id, &pem, now)?;
        let expires_at = now.checked_add(ASSERTION_LASTS).unwrap_or(now);
        held.replace(InstallationToken { token: assertion.clone(), expires_at });
        grant(Principal::App, held.generation, &assertion)
    }

    fn now_at_github(&self) -> Timestamp {
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        now.checked_add(skew).unwrap_or(now)
    }

    /// Takes in that GitHub did not accept a grant. Whether another try, with a new grant, makes
    /// sense.
    pub(super) async fn refused(&self, refused: &Grant, answer: &Answer) -> bool {
        match refused.principal {
            Principal::Anonymous => false,
            // The next grant asks the secret store again.
            Principal::Token => {
                let Kind::Token { token } = &self.kind else { return false };
                matches!(self.of_token(token).await,
                    Ok(now) if now.generation != refused.generation)
            }
            Principal::App => {
                if let Some(date) = answer.date() {
                    let ahead = date.duration_since(self.clock.now());
                    let differs = ahead.abs() > SignedDuration::from_secs(20);
                    *self.skew.lock().unwrap_or_else(PoisonError::into_inner) =
                        if differs { ahead } else { SignedDuration::ZERO };
                }
                let mut held = self.assertion.lock().await;
                if held.generation == refused.generation {
                    held.token = None;
                }
                true
            }
            Principal::Installation(id) => {
                let slot = self.slot(id);
                let mut held = slot.lock().await;
                if held.generation == refused.generation {
                    held.token = None;
                }
                true
            }
        }
    }

    /// Forgets which installation answers for an owner: what was installed there is gone.
    async fn forget(&self, installation: u64) {
        self.installations.lock().await.retain(|_, known| *known != installation);
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&installation);
    }

    fn slot(&self, installation: u64) -> Arc<tokio::sync::Mutex<Held>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(installation).or_default())
    }

    async fn of_installation(&self, id: u64) -> Result<Grant> {
        let slot = self.slot(id);
        // Held while a token is minted: whoever comes meanwhile waits for that one.
        let mut held = slot.lock().await;
        let now = self.now_at_github();
        if let Some(token) = &held.token
            && token.expires_at.duration_since(now) > REFRESH_BEFORE
        {
            return grant(Principal::Installation(id), held.generation, &token.token);
        }
        match self.mint(id, &TokenRequest::default()).await {
            Ok(token) => held.replace(token),
            Err(error) => match &held.token {
                // It is good for a few minutes more.
                Some(token) if error.kind().is_retryable() && token.expires_at > now => {
                    tracing::debug!(%error, installation = id, "a token is not renewed yet");
                }
                _ => {
                    drop(held);
                    if matches!(error.kind(), ErrorKind::NotFound) {
                        self.forget(id).await;
                    }
                    return Err(error);
                }
            },
        }
        match &held.token {
            Some(token) => grant(Principal::Installation(id), held.generation, &token.token),
            None => Err(Error::transient("get a GitHub token", "the token is gone already")),
        }
    }

    /// Mints a token of an installation, narrowed as asked.
    pub(super) async fn mint(
        &self,
        installation: u64,
        request: &TokenRequest,
    ) -> Result<InstallationToken> {
        #[derive(Deserialize)]
        struct Minted {
            token: SecretString,
            expires_at: Timestamp,
        }
        let body = serde_json::to_vec(request).map_err(|error| {
            Error::invalid("get a GitHub token", "the request cannot be written").caused_by(error)
        })?;
        let id = installation.to_string();
        let call = Call {
            method: Method::POST,
            body: Some(Bytes::from(body)),
            cost: Cost::Write,
            ..as_app(
                "get a GitHub token",
                Route::new(["app", "installations", &id, "access_tokens"]),
            )
        };
        let answer = self.ask_as_app(&call).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_found(
                "get a GitHub token",
                "the App's installation is gone; install the App on the repository again",
            )
            .with("installation", installation)
            .caused_by(error),
            _ => error,
        })?;
        let minted: Minted = serde_json::from_slice(&answer.body).map_err(|_| {
            // The cause could quote what it did not understand.
            call.failed(ErrorKind::Transient, "GitHub's answer holds no token")
        })?;
        Ok(InstallationToken { token: minted.token, expires_at: minted.expires_at })
    }

    /// The installation that answers for a repository or an owner.
    pub(super) async fn installation(&self, scope: &Scope) -> Result<u64> {
        const OPERATION: &str = "find the App's installation";
        #[derive(Deserialize)]
        struct Installation {
            id: u64,
            #[serde(default)]
            suspended_at: Option<Timestamp>,
        }
        let Some(owner) = scope.owner().map(str::to_ascii_lowercase) else {
            return Err(Error::invalid(OPERATION, "the App itself is no installation"));
        };
        // Held while one is looked for: whoever comes meanwhile waits for that.
        let mut known = self.installations.lock().await;
        if let Some(id) = known.get(&owner) {
            return Ok(*id);
        }
        let routes = match scope {
            Scope::Repo(repo) => vec![Route::of_repo(repo, ["installation"])],
            _ => vec![
                Route::new(["orgs", &owner, "installation"]),
                Route::new(["users", &owner, "installation"]),
            ],
        };
        let mut missing = None;
        for route in routes {
            let call = as_app(OPERATION, route);
            match self.ask_as_app(&call).await {
                Ok(answer) => {
                    let found: Installation =
                        serde_json::from_slice(&answer.body).map_err(|error| {
                            call.failed(ErrorKind::Transient, "GitHub's answer is not understood")
                                .caused_by(error)
                        })?;
                    if found.suspended_at.is_some() {
                        return Err(Error::denied(
                            OPERATION,
                            "the App's installation is suspended; its owner can unsuspend it on the \
                             installation's settings page",
                        )
                        .with("owner", owner));
                    }
                    known.insert(owner, found.id);
                    return Ok(found.id);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        let error = Error::not_found(
            OPERATION,
            "the App is not installed there, or there is no such repository; install the App on it",
        )
        .with("owner", owner);
        Err(match missing {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }

    /// A call with the App's own assertion; once more with a new one when it is not accepted.
    async fn ask_as_app(&self, call: &Call) -> Result<Answer> {
        let Kind::App { id, key } = &self.kind else { return Err(no_app()) };
        let mut grant = self.of_app(*id, key).await?;
        let mut answer = self.transport.exchange(call, &grant, None).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.refused(&grant, &answer).await {
            grant = self.of_app(*id, key).await?;
            answer = self.transport.exchange(call, &grant, None).await?;
        }
        check(call, &grant, answer)
    }
}

/// What a token is narrowed to; nothing means all that the installation has
/// (<https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>).
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TokenRequest {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) repository_ids: Vec<u64>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) permissions: std::collections::BTreeMap<&'static str, &'static str>,
}

fn no_app() -> Error {
    Error::unsupported("call GitHub as an App", "the connection's credential is no GitHub App")
}

fn as_app(operation: &'static str, route: Route) -> Call {
    Call {
        operation,
        method: Method::GET,
        route,
        accept: JSON,
        body: None,
        priority: Priority::Status,
        cost: Cost::Read,
        max_bytes: 1 << 20,
    }
}

fn grant(principal: Principal, generation: u64, token: &SecretString) -> Result<Grant> {
    let text = format!("Bearer {}", token.expose_secret().trim());
    let mut authorization = HeaderValue::from_str(&text).map_err(|_| {
        Error::invalid(
            "call GitHub",
            "the credential cannot be a header; does it hold a line break?",
        )
        .with("credential", &principal)
    })?;
    authorization.set_sensitive(true);
    Ok(Grant { principal, generation, authorization: Some(authorization) })
}

/// The assertion by which an App calls
/// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).
fn sign(app: u64, pem: &SecretString, now: Timestamp) -> Result<SecretString> {
    const OPERATION: &str = "sign as the GitHub App";
    #[derive(Serialize)]
    struct Claims {
        iss: String,
        iat: i64,
        exp: i64,
    }
    let key = EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes()).map_err(|_| {
        Error::invalid(OPERATION, "the App's private key is no RSA key in PEM").with("app", app)
    })?;
    let claims = Claims {
        iss: app.to_string(),
        iat: now.as_second() - DATED_BACK.as_secs(),
        exp: now.as_second() + ASSERTION_LASTS.as_secs(),
    };
    let assertion =
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).map_err(|_| {
            Error::invalid(OPERATION, "the App's private key cannot sign").with("app", app)
        })?;
    Ok(SecretString::from(assertion))
}
