//! GitHub.com and GitHub Enterprise Server.
//!
//! One [`GitHubDriver`] has one credential and serves all repositories that it allows. All calls of
//! a driver go through one budget, so that GitHub's limits are kept whatever is going on: what
//! people wait for to be shown comes before what runs need, and that before polls, which leave a
//! reserve alone. A call that would break a limit is not made; it fails with
//! [`RateLimited`](workflows_core::ErrorKind::RateLimited) and the instant from which it can be.
//! [`GitHubDriver::budget`] and these metrics (through the [`metrics`](https://docs.rs/metrics)
//! facade) show how things stand:
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `workflows_github_calls_total` | counter | `outcome` | calls: `answered`, `not_modified`, `refused` (4xx), `limited`, `server_error`, `failed` (no whole answer), `held_back` (not made) |
//! | `workflows_github_held_back_total` | counter | `priority`, `reason` | calls that were not made, so that a limit is kept |
//! | `workflows_github_remaining` | gauge | `credential`, `resource` | what GitHub says is left of the present window |
//! | `workflows_github_blocked_until_seconds` | gauge | `credential` | the instant (Unix time) until which GitHub said to stay away; 0 when it did not |
//! | `workflows_github_points_in_the_last_minute` | gauge | `credential` | a read is one point, a write five; as of the last call |
//! | `workflows_github_calls_in_flight` | gauge | `credential` | calls under way |
//! | `workflows_github_reads_joined_total` | counter | – | reads that waited for the same read of another |

pub(crate) mod api;
mod authorization;
mod changes;
mod check_action;
mod checks;
mod clone_credentials;
mod comment_feed;
mod comment_id;
mod comments;
mod commit_statuses;
mod connection;
mod credentials;
mod deliveries;
mod events;
mod files;
mod foreign;
mod history;
mod hooks;
mod objects;
mod permissions;
mod pull_request;
mod pull_requests;
mod refs;
mod repo_path;
mod reporter;
mod trees;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use workflows_core::{
    Capabilities, Capability, ConnectionName, Error, RepoConnection, RepoId, RepoRef, Result,
    ScmDriver, SecretStore, SharedClock, SystemClock, Tenant, matching::Pattern,
};

use self::{
    api::Api,
    authorization::{Authorizer, Scope},
    connection::GitHubRepository,
    credentials::Kind,
    foreign::ForeignRepos,
    objects::GitObjects,
    repo_path::{RepoPath, of_repo},
};
pub use self::{
    credentials::GitHubCredentials, deliveries::GitHubDeliveryLog, events::GitHubDeliveries,
    hooks::GitHubHooks,
};
use crate::rest::{
    BudgetLimits, CallBudget, ClientOptions, ConditionalCache, Governor, HostSecret, Priority,
    Transport, allowed_patterns, base_address,
    credentials::{Keyring, check_named},
    objects::ObjectCache,
};

/// Reaches repositories on GitHub.com or a GitHub Enterprise Server with one credential.
///
/// Clones are the same driver, with one budget. Let one driver serve all repositories of a credential,
/// or let those that share it share its budget ([`GitHubDriverBuilder::shared_budget`]): GitHub counts
/// the calls of all of them together.
///
/// ```
/// use std::sync::Arc;
/// use workflows_core::{SecretRef, StaticSecrets, Tenant};
/// use workflows_scm::github::{GitHubCredentials, GitHubDriver};
///
/// # fn main() -> workflows_core::Result<()> {
/// let key = SecretRef { name: "github-app".into(), key: "private-key.pem".into() };
/// let secrets = StaticSecrets::new().with(Tenant::default(), key.clone(), "-----BEGIN ...");
/// let driver = GitHubDriver::builder()
///     .credentials(GitHubCredentials::app(12345, key))
///     .secrets(Tenant::default(), Arc::new(secrets))
///     .allow("acme/*")
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GitHubDriver {
    host: Arc<str>,
    allowed: Arc<[Pattern]>,
    api: Api,
    objects: Arc<ObjectCache>,
    git: Arc<GitObjects>,
    foreign: Arc<ForeignRepos>,
}

impl GitHubDriver {
    /// A driver to be described.
    pub fn builder() -> GitHubDriverBuilder {
        GitHubDriverBuilder::default()
    }

    /// How the limits of the credential stand. Of an App each installation has its own, and a line
    /// once it was used.
    pub fn budget(&self) -> Vec<CallBudget> {
        self.api.governor().snapshot()
    }

    /// The budget itself, for another driver with the same credential.
    pub fn shared_budget(&self) -> GitHubBudget {
        GitHubBudget(Arc::clone(self.api.governor()))
    }

    /// What a repository is called for good: the host and GitHub's number of it, which a rename or
    /// a move to another owner does not change.
    pub fn repo_id(&self, number: u64) -> RepoId {
        RepoId::new(format!("{}/{number}", self.host))
    }

    /// Whether the driver's patterns allow a repository.
    pub fn allows(&self, full_name: &str) -> bool {
        let name = full_name.to_ascii_lowercase();
        self.allowed.is_empty() || self.allowed.iter().any(|pattern| pattern.matches(&name))
    }

    /// How GitHub writes and signs webhook deliveries about the repositories of this driver.
    pub fn deliveries(&self) -> GitHubDeliveries {
        GitHubDeliveries::of(self.clone())
    }

    /// Takes in what a repository is called now.
    pub(crate) fn note_name(&self, number: u64, full_name: &str) {
        self.foreign.note(number, self.allows(full_name), self.api.now());
    }

    /// Whether a repository is known to be none that the patterns allow.
    pub(crate) fn is_foreign(&self, number: u64) -> bool {
        self.foreign.has(number, self.api.now())
    }

    pub(crate) fn note_installation(&self, owner: &str, installation: u64) {
        self.api.authorizer().note_installation(owner, installation);
    }

    pub(crate) async fn forget_installation(&self, owner: &str) {
        self.api.authorizer().forget_owner(owner).await;
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }
}

#[async_trait]
impl ScmDriver for GitHubDriver {
    fn host(&self) -> &str {
        &self.host
    }

    fn capabilities(&self) -> Capabilities {
        let mut offered =
            vec![Capability::History, Capability::PullRequests, Capability::CommentFeed];
        if !self.api.authorizer().is_anonymous() {
            offered.extend([
                Capability::Permissions,
                Capability::StatusReporter,
                Capability::Commenter,
                Capability::WebhookAdmin,
                Capability::DeliveryLog,
            ]);
        }
        if self.api.authorizer().mints() {
            offered.push(Capability::CloneCredentials);
        }
        Capabilities::of(offered)
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        const OPERATION: &str = "connect to GitHub repository";
        let path = RepoPath::parse(repo)?;
        if !self.allows(repo) {
            return Err(Error::denied(OPERATION, "the connection does not allow this repository")
                .with("repository", path));
        }
        let client = self.api.about(Scope::Repo(path.clone()), Priority::Fetch);
        let found: Repository = client.get(OPERATION, &of_repo(&path, [])).await?;
        // A renamed repository answers to its old name too.
        let path = RepoPath::parse(&found.full_name)?;
        Ok(Arc::new(GitHubRepository::new(
            RepoRef {
                connection: connection.clone(),
                id: self.repo_id(found.id),
                name: repo.into(),
            },
            path,
            found,
            self.api.clone(),
            Arc::clone(&self.objects),
            Arc::clone(&self.git),
        )))
    }
}

/// The budget of a credential, which the drivers that have it share.
#[derive(Debug, Clone)]
pub struct GitHubBudget(Arc<Governor<api::GitHub>>);

/// What GitHub says of a repository.
#[derive(Debug, Deserialize)]
struct Repository {
    id: u64,
    full_name: String,
    clone_url: String,
    html_url: String,
}

/// What a driver allows itself. GitHub refuses more than 100 calls at the same time, 900 points a minute
/// (one for a read, five for a write), and 80 writes a minute and 500 an hour that people are told of.
const LIMITS: BudgetLimits = BudgetLimits {
    concurrency: 64,
    points: 850,
    content_a_minute: 75,
    content_an_hour: 480,
    reserve: 10,
};

/// Describes a [`GitHubDriver`].
#[derive(Debug)]
pub struct GitHubDriverBuilder {
    base: String,
    credentials: GitHubCredentials,
    keyring: Option<Keyring>,
    clone_token: Option<HostSecret>,
    allowed: Vec<String>,
    clock: SharedClock,
    limits: BudgetLimits,
    shared_budget: Option<GitHubBudget>,
    client: ClientOptions,
    memory_bytes: u64,
}

impl Default for GitHubDriverBuilder {
    fn default() -> Self {
        Self {
            base: "https://api.github.com".to_owned(),
            credentials: GitHubCredentials::anonymous(),
            keyring: None,
            clone_token: None,
            allowed: Vec::new(),
            clock: Arc::new(SystemClock),
            limits: LIMITS,
            shared_budget: None,
            client: ClientOptions::default(),
            memory_bytes: 64 << 20,
        }
    }
}

impl GitHubDriverBuilder {
    /// The API's address: `https://api.github.com` (the default), or of a GitHub Enterprise Server
    /// `https://HOST/api/v3`.
    #[must_use]
    pub fn base(mut self, address: impl Into<String>) -> Self {
        self.base = address.into();
        self
    }

    /// What GitHub is shown; by default nothing, which can read public repositories.
    #[must_use]
    pub fn credentials(mut self, credentials: GitHubCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Where the secrets that the credentials name are, and in which tenant.
    #[must_use]
    pub fn secrets(mut self, tenant: Tenant, store: Arc<dyn SecretStore>) -> Self {
        self.keyring = Some(Keyring { tenant, store });
        self
    }

    /// A token that runs are handed to clone with: one that can do no more than read the
    /// repositories. An App needs none, for it mints a token for each repository; without either,
    /// runs get no credential.
    #[must_use]
    pub fn clone_token(mut self, token: impl Into<HostSecret>) -> Self {
        self.clone_token = Some(token.into());
        self
    }

    /// Allows the repositories of a [pattern](Pattern): `acme/api`, `acme/*`. May be called several
    /// times; when it is never called, all that the credential can reach are allowed. Case does not
    /// matter, as at GitHub.
    #[must_use]
    pub fn allow(mut self, pattern: impl Into<String>) -> Self {
        self.allowed.push(pattern.into());
        self
    }

    /// The time; by default the machine's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Trusts one more authority (PEM, one or more certificates) besides those of the system.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client.root_certificates.push(pem.into());
        self
    }

    /// Reaches GitHub through this proxy. The environment is not asked for one.
    #[must_use]
    pub fn proxy(mut self, address: impl Into<String>) -> Self {
        self.client.proxy = Some(address.into());
        self
    }

    /// How long to wait for a connection (10 s), and for the whole of an answer (30 s).
    #[must_use]
    pub fn timeouts(mut self, connect: Duration, call: Duration) -> Self {
        self.client.connect_timeout = connect;
        self.client.call_timeout = call;
        self
    }

    /// How many bytes of answers and files are kept in memory; 64 MiB by default.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// How many calls go on at the same time: 64 by default, at most 100, beyond which GitHub
    /// refuses.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = calls;
        self
    }

    /// The part of the hourly limit, in per cent, that polls and other background work never touch;
    /// 10 by default. What always counts leaves as much again to polls of what was read before, which
    /// cost nothing while it is unchanged.
    #[must_use]
    pub fn reserve(mut self, per_cent: u8) -> Self {
        self.limits.reserve = per_cent;
        self
    }

    /// Has the driver keep GitHub's limits together with another that has the same credential, by
    /// that one's `concurrency` and `reserve`.
    #[must_use]
    pub fn shared_budget(mut self, budget: GitHubBudget) -> Self {
        self.shared_budget = Some(budget);
        self
    }

    /// Makes the driver. Nothing is asked of GitHub yet.
    ///
    /// # Errors
    ///
    /// `Invalid` for an address that is none, a pattern that is none, a certificate that cannot be
    /// read, a secret that is named while there is no store, a credential that would go over plain
    /// http to another machine, and `concurrency` or `reserve` beside a shared budget.
    pub fn build(self) -> Result<GitHubDriver> {
        const OPERATION: &str = "build the GitHub driver";
        let has_credential = !matches!(self.credentials.0, Kind::Anonymous);
        let example = "https://api.github.com or https://HOST/api/v3";
        let (base, host) = base_address(OPERATION, &self.base, example, has_credential)?;
        let host: Arc<str> =
            if host == "api.github.com" { "github.com".into() } else { host.into() };
        let own = match &self.credentials.0 {
            Kind::App { key: secret, .. } | Kind::Token { token: secret } => Some(secret),
            Kind::Anonymous => None,
        };
        let secrets = own.into_iter().chain(&self.clone_token);
        check_named(OPERATION, secrets, self.keyring.as_ref())?;
        let allowed = allowed_patterns(OPERATION, &self.allowed)?;
        let governor = match self.shared_budget {
            None => Governor::new(self.limits, Arc::clone(&self.clock)),
            Some(GitHubBudget(shared)) if self.limits == LIMITS => shared,
            Some(_) => {
                return Err(Error::invalid(
                    OPERATION,
                    "a shared budget has its own concurrency and reserve; set them where it is made",
                ));
            }
        };
        let transport = Arc::new(Transport::new(base, governor, &self.client)?);
        let authorizer = Authorizer::new(
            self.credentials.0,
            self.keyring,
            self.clone_token,
            Arc::clone(&self.clock),
            Arc::clone(&transport),
        );
        let conditional = ConditionalCache::new(self.memory_bytes / 2);
        Ok(GitHubDriver {
            host,
            allowed: allowed.into(),
            api: Api::new(transport, authorizer, conditional, self.clock),
            objects: Arc::new(ObjectCache::new(self.memory_bytes / 8 * 3)),
            git: Arc::new(GitObjects::new(self.memory_bytes / 8)),
            foreign: Default::default(),
        })
    }
}

/// For tests of what hosts share.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::{api::GitHub, authorization::Principal};
    use crate::rest::BudgetLimits;

    pub(crate) const LIMITS: BudgetLimits = super::LIMITS;
}
