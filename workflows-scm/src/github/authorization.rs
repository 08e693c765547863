//! Which credential a call is made with: tokens that are asked for, minted and kept.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use workflows_core::{Error, ErrorKind, Result, SharedClock};

use super::{
    api::GitHub,
    credentials::Kind,
    repo_path::{RepoPath, of_repo},
};
use crate::{
    repeated::repeated,
    rest::{
        Answer, Authorize, Call, Cost, Host, HostSecret, Priority, Route, Transport, check,
        credentials::{Keyring, present},
    },
};

type Grant = crate::rest::Grant<GitHub>;

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

/// Whose limits a call counts against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Principal {
    /// The App itself, with its signed assertion.
    App,
    /// One installation of the App.
    Installation(u64),
    /// The owner of a token.
    Token,
    /// The address that this process calls from.
    Anonymous,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App => f.write_str("app"),
            Self::Installation(id) => write!(f, "installation {id}"),
            Self::Token => f.write_str("token"),
            Self::Anonymous => f.write_str("anonymous"),
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
pub(crate) struct Authorizer {
    kind: Kind,
    keyring: Option<Keyring>,
    clone_token: Option<HostSecret>,
    clock: SharedClock,
    transport: Arc<Transport<GitHub>>,
    /// The installation of each owner, lower-case.
    installations: moka::future::Cache<String, u64>,
    /// What webhooks told of installations that were not asked for yet.
    told: Mutex<HashMap<String, u64>>,
    tokens: Mutex<HashMap<u64, Arc<Slot>>>,
    assertion: Slot,
    plain: Mutex<Held>,
    /// By how much GitHub's clock is ahead of ours, once it mattered.
    skew: Mutex<SignedDuration>,
}

/// The token of one principal.
#[derive(Debug, Default)]
struct Slot {
    /// Held while a new one is made: whoever comes meanwhile waits for that one.
    renewing: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
}

/// The present token of a principal, and how often it was another one.
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

impl Slot {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A grant with the present token, when so much is left of it.
    fn grant(
        &self,
        principal: &Principal,
        now: Timestamp,
        left: SignedDuration,
    ) -> Result<Option<Grant>> {
        let held = self.held();
        match &held.token {
            Some(token) if token.expires_at.duration_since(now) > left => {
                grant(principal.clone(), held.generation, &token.token).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Forgets a token that was not accepted, unless there is another one already.
    fn refuse(&self, generation: u64) {
        let mut held = self.held();
        if held.generation == generation {
            held.token = None;
        }
    }
}

/// An assertion is valid for so long; GitHub refuses ten minutes and more.
const ASSERTION_LASTS: SignedDuration = SignedDuration::from_mins(9);
/// It is dated back, for clocks that are behind.
const DATED_BACK: SignedDuration = SignedDuration::from_secs(60);
/// What is left of a token when a new one is minted, by one call; the others go on with the old one.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// With less left than this nobody goes on.
const SURE: SignedDuration = SignedDuration::from_secs(60);
/// A clock that differs by more is not taken for a clock.
const MOST_SKEW: SignedDuration = SignedDuration::from_hours(24);
const MOST_OWNERS: u64 = 10_000;
/// Each is taken out when it is needed for the first time.
const MOST_TOLD: usize = 10_000;

impl Authorizer {
    pub(super) fn new(
        kind: Kind,
        keyring: Option<Keyring>,
        clone_token: Option<HostSecret>,
        clock: SharedClock,
        transport: Arc<Transport<GitHub>>,
    ) -> Self {
        Self {
            kind,
            keyring,
            clone_token,
            clock,
            transport,
            installations: moka::future::Cache::new(MOST_OWNERS),
            told: Default::default(),
            tokens: Default::default(),
            assertion: Default::default(),
            plain: Default::default(),
            skew: Mutex::new(SignedDuration::ZERO),
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The token that was configured for runs to clone with.
    pub(super) async fn clone_token(&self) -> Result<Option<SecretString>> {
        match &self.clone_token {
            Some(token) => present(token, self.keyring.as_ref()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether the credential is an App, without which there are no check runs.
    pub(crate) fn is_app(&self) -> bool {
        matches!(self.kind, Kind::App { .. })
    }

    /// Whether there is no credential.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.kind, Kind::Anonymous)
    }

    /// Whether runs can be given something to clone with.
    pub(crate) fn mints(&self) -> bool {
        self.is_app() || self.clone_token.is_some()
    }

    /// A token of a repository's installation, narrowed as asked. It is not kept here.
    pub(super) async fn narrowed(
        &self,
        scope: &Scope,
        request: &TokenRequest,
    ) -> Result<InstallationToken> {
        let Some(owner) = scope.owner() else { return Err(no_app()) };
        self.with_installation(scope, owner, |id| self.mint(id, request)).await
    }

    /// Does something with the installation for a scope. When that is gone, it is looked for again,
    /// for the App may have been installed anew.
    async fn with_installation<T, F: Future<Output = Result<T>>>(
        &self,
        scope: &Scope,
        owner: &str,
        work: impl Fn(u64) -> F,
    ) -> Result<T> {
        let known = self.installation(scope, owner).await?;
        match work(known).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.installations.invalidate(&owner.to_ascii_lowercase()).await;
                let found = self.installation(scope, owner).await?;
                if found == known {
                    return Err(not_installed(owner).caused_by(error));
                }
                self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&known);
                work(found).await
            }
            done => done,
        }
    }

    async fn of_token(&self, token: &HostSecret) -> Result<Grant> {
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

    async fn of_app(&self, id: u64, key: &HostSecret) -> Result<Grant> {
        let _renewing = self.assertion.renewing.lock().await;
        let now = self.now_at_github();
        if let Some(grant) = self.assertion.grant(&Principal::App, now, SURE)? {
            return Ok(grant);
        }
        let pem = present(key, self.keyring.as_ref()).await?;
        let token = sign(id, &pem, now)?;
        let expires_at = now.checked_add(ASSERTION_LASTS).unwrap_or(now);
        let mut held = self.assertion.held();
        held.replace(InstallationToken { token: token.clone(), expires_at });
        grant(Principal::App, held.generation, &token)
    }

    fn now_at_github(&self) -> Timestamp {
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        now.checked_add(skew).unwrap_or(now)
    }

    /// Takes in which installation answers for an owner, as a webhook of the App tells, so that it need
    /// not be asked for. One that is gone by then is asked for again.
    pub(super) fn note_installation(&self, owner: &str, installation: u64) {
        let owner = owner.to_ascii_lowercase();
        if !self.is_app() || self.installations.contains_key(&owner) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST_TOLD {
            told.insert(owner, installation);
        }
    }

    /// Forgets which installation answers for an owner, because GitHub said that it changed.
    pub(super) async fn forget_owner(&self, owner: &str) {
        let owner = owner.to_ascii_lowercase();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner);
        self.installations.invalidate(&owner).await;
    }

    fn slot(&self, installation: u64) -> Arc<Slot> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(installation).or_default())
    }

    async fn of_installation(&self, id: u64) -> Result<Grant> {
        let (slot, principal) = (self.slot(id), Principal::Installation(id));
        if let Some(grant) = slot.grant(&principal, self.now_at_github(), RENEW_BEFORE)? {
            return Ok(grant);
        }
        let renewing = match slot.renewing.try_lock() {
            Ok(renewing) => renewing,
            Err(_) => match slot.grant(&principal, self.now_at_github(), SURE)? {
                Some(grant) => return Ok(grant),
                None => slot.renewing.lock().await,
            },
        };
        // Who held the lock before has made one.
        if let Some(grant) = slot.grant(&principal, self.now_at_github(), RENEW_BEFORE)? {
            return Ok(grant);
        }
        let minted = self.mint(id, &TokenRequest::default()).await;
        match minted {
            Ok(token) => slot.held().replace(token),
            Err(error) if error.kind().is_retryable() => {
                if let Some(grant) =
                    slot.grant(&principal, self.now_at_github(), SignedDuration::ZERO)?
                {
                    tracing::debug!(%error, installation = id, "a token is not renewed yet");
                    return Ok(grant);
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        drop(renewing);
        slot.grant(&principal, self.now_at_github(), SignedDuration::ZERO)?.ok_or_else(|| {
            Error::transient(
                "get a GitHub token",
                "GitHub's new token has ended already; is this machine's clock right?",
            )
        })
    }

    /// Mints a token of an installation, narrowed as asked.
    async fn mint(&self, installation: u64, request: &TokenRequest) -> Result<InstallationToken> {
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
            ErrorKind::NotFound => {
                Error::not_found("get a GitHub token", "the App's installation is gone")
                    .with("installation", installation)
                    .caused_by(error)
            }
            _ => error,
        })?;
        let minted: Minted = serde_json::from_slice(&answer.body).map_err(|_| {
            // The cause could quote what it did not understand.
            call.failed(ErrorKind::Transient, "GitHub's answer holds no token")
        })?;
        Ok(InstallationToken { token: minted.token, expires_at: minted.expires_at })
    }

    /// The installation that answers for an owner's repositories. An account has one of an App.
    async fn installation(&self, scope: &Scope, owner: &str) -> Result<u64> {
        let find = self.find_installation(scope, owner);
        self.installations.try_get_with(owner.to_ascii_lowercase(), find).await.map_err(repeated)
    }

    async fn find_installation(&self, scope: &Scope, owner: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Installation {
            id: u64,
            #[serde(default)]
            suspended_at: Option<Timestamp>,
        }
        let told = self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&owner.to_ascii_lowercase());
        if let Some(told) = told {
            return Ok(told);
        }
        let mut routes = vec![
            Route::new(["orgs", owner, "installation"]),
            Route::new(["users", owner, "installation"]),
        ];
        if let Scope::Repo(repo) = scope {
            // One that is not there, or not chosen for the installation, says nothing of its owner.
            routes.insert(0, of_repo(repo, ["installation"]));
        }
        for route in routes {
            let call = as_app(FIND, route);
            match self.ask_as_app(&call).await {
                Ok(answer) => {
                    let found: Installation =
                        serde_json::from_slice(&answer.body).map_err(|error| {
                            call.failed(ErrorKind::Transient, "GitHub's answer is not understood")
                                .caused_by(error)
                        })?;
                    if found.suspended_at.is_some() {
                        return Err(Error::denied(
                            FIND,
                            "the App's installation is suspended; its owner can unsuspend it on \
                             the installation's settings page",
                        )
                        .with("owner", owner));
                    }
                    return Ok(found.id);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(not_installed(owner))
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

#[async_trait]
impl Authorize<GitHub> for Authorizer {
    async fn grant(&self, scope: &Scope) -> Result<Grant> {
        match (&self.kind, scope.owner()) {
            (Kind::Anonymous, Some(_)) => {
                Ok(Grant { principal: Principal::Anonymous, generation: 0, authorization: None })
            }
            (Kind::Token { token }, Some(_)) => self.of_token(token).await,
            (Kind::App { id, key }, None) => self.of_app(*id, key).await,
            (Kind::App { .. }, Some(owner)) => {
                self.with_installation(scope, owner, |id| self.of_installation(id)).await
            }
            (_, None) => Err(no_app()),
        }
    }

    async fn refused(&self, refused: &Grant, answer: &Answer) -> bool {
        match refused.principal {
            Principal::Anonymous => false,
            // The secret store may have another one by now.
            Principal::Token => {
                let Kind::Token { token } = &self.kind else { return false };
                let now = self.of_token(token).await;
                now.is_ok_and(|now| now.generation != refused.generation)
            }
            // The key may be another one, or our clock is wrong.
            Principal::App => {
                if let Some(date) = answer.date() {
                    let ahead = date.duration_since(self.clock.now());
                    let is_off = ahead.abs() > SignedDuration::from_secs(20);
                    let counts = is_off && ahead.abs() <= MOST_SKEW;
                    *self.skew.lock().unwrap_or_else(PoisonError::into_inner) =
                        if counts { ahead } else { SignedDuration::ZERO };
                }
                self.assertion.refuse(refused.generation);
                true
            }
            Principal::Installation(id) => {
                self.slot(id).refuse(refused.generation);
                true
            }
        }
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

const FIND: &str = "find the App's installation";

fn not_installed(owner: &str) -> Error {
    Error::denied(FIND, "the App is not installed there; its owner has to install it")
        .with("owner", owner)
}

fn no_app() -> Error {
    Error::unsupported("call GitHub as an App", "the connection's credential is no GitHub App")
}

fn as_app(operation: &'static str, route: Route) -> Call {
    Call {
        operation,
        method: Method::GET,
        route,
        accept: GitHub::JSON,
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
