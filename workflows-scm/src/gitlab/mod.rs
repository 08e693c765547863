//! GitLab.com and self-managed GitLab.
//!
//! One [`GitLabDriver`] has one token (personal, of a project, or of a group) and serves all projects
//! that it reaches, in groups and subgroups. All calls of a driver go through one budget, so that
//! GitLab's limits are kept whatever is going on; a call that would break one is not made, and fails
//! with [`RateLimited`](workflows_core::ErrorKind::RateLimited) and the instant from which it can be.
//! [`GitLabDriver::budget`] and these metrics (through the [`metrics`](https://docs.rs/metrics) facade)
//! show how things stand:
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `workflows_gitlab_calls_total` | counter | `outcome` | calls: `answered`, `not_modified`, `refused` (4xx), `limited`, `server_error`, `failed` (no whole answer), `held_back` (not made) |
//! | `workflows_gitlab_held_back_total` | counter | `priority`, `reason` | calls that were not made, so that a limit is kept |
//! | `workflows_gitlab_remaining` | gauge | `credential`, `resource` | what GitLab says is left of the present minute |
//! | `workflows_gitlab_blocked_until_seconds` | gauge | `credential` | the instant (Unix time) until which GitLab said to stay away; 0 when it did not |
//! | `workflows_gitlab_points_in_the_last_minute` | gauge | `credential` | a call is one point; as of the last call |
//! | `workflows_gitlab_calls_in_flight` | gauge | `credential` | calls under way |
//! | `workflows_gitlab_reads_joined_total` | counter | – | reads that waited for the same read of another |
//!
//! GitLab's words in this crate's: a merge request is a pull request, a project a repository, a note a
//! comment.

mod api;
mod authorization;
mod changes;
mod clone_credentials;
mod comment_feed;
mod comments;
mod connection;
mod deliveries;
mod events;
mod files;
mod group_listing;
mod history;
mod hooks;
mod merge_request;
mod merge_requests;
mod permissions;
mod project_path;
mod refs;
mod statuses;
mod token;
mod watch;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use workflows_core::{
    Capabilities, Capability, ConnectionName, Error, RepoConnection, RepoId, RepoRef, Result,
    ScmDriver, SecretStore, SharedClock, SystemClock, Tenant, matching::Pattern,
};

use self::{
    api::Api,
    authorization::Authorizer,
    connection::{GitLabProject, Seen},
    project_path::ProjectPath,
};
pub use self::{
    authorization::GitLabCredentials, deliveries::GitLabDeliveryLog, events::GitLabDeliveries,
    hooks::GitLabHooks, token::GitLabToken, watch::GitLabWatch,
};
use crate::rest::{
    BudgetLimits, CallBudget, ClientOptions, ConditionalCache, Governor, HostSecret, Priority,
    Route, Transport, allowed_patterns, base_address,
    credentials::{Keyring, check_named},
};

/// Reaches projects on GitLab.com or a self-managed GitLab with one token.
///
/// ```
/// use std::sync::Arc;
/// use workflows_core::{SecretRef, StaticSecrets, Tenant};
/// use workflows_scm::gitlab::{GitLabCredentials, GitLabDriver};
///
/// # fn main() -> workflows_core::Result<()> {
/// let token = SecretRef { name: "gitlab".into(), key: "token".into() };
/// let secrets = StaticSecrets::new().with(Tenant::default(), token.clone(), "glpat-...");
/// let driver = GitLabDriver::builder()
///     .base("https://gitlab.example.com")
///     .credentials(GitLabCredentials::token(token))
///     .secrets(Tenant::default(), Arc::new(secrets))
///     .allow("acme/**")
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GitLabDriver {
    host: Arc<str>,
    allowed: Arc<[Pattern]>,
    api: Api,
    seen: Arc<Seen>,
}

impl GitLabDriver {
    /// A driver to be described.
    pub fn builder() -> GitLabDriverBuilder {
        GitLabDriverBuilder::default()
    }

    /// How the limits of the token stand.
    pub fn budget(&self) -> Vec<CallBudget> {
        self.api.governor().snapshot()
    }

    /// What a repository is called for good: the host and GitLab's number of the project, which a
    /// rename or a move to another group does not change.
    pub fn repo_id(&self, project: u64) -> RepoId {
        RepoId::new(format!("{}/{project}", self.host))
    }

    /// Whether the driver's patterns allow a project, by its full path.
    pub fn allows(&self, full_path: &str) -> bool {
        let name = full_path.to_ascii_lowercase();
        self.allowed.is_empty() || self.allowed.iter().any(|pattern| pattern.matches(&name))
    }

    /// How GitLab writes and signs webhook deliveries about the projects of this driver.
    pub fn deliveries(&self) -> GitLabDeliveries {
        GitLabDeliveries::of(self.clone())
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }
}

#[async_trait]
impl ScmDriver for GitLabDriver {
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
        if self.api.authorizer().has_clone_token() {
            offered.push(Capability::CloneCredentials);
        }
        Capabilities::of(offered)
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        const OPERATION: &str = "connect to GitLab project";
        let path = ProjectPath::parse(repo)?;
        if !self.allows(repo) {
            return Err(Error::denied(OPERATION, "the connection does not allow this repository")
                .with("repository", path));
        }
        let client = self.api.about((), Priority::Fetch);
        let route = Route::new(["projects", path.as_str()]);
        let found: Project = client.get(OPERATION, &route).await?;
        let repo = RepoRef {
            connection: connection.clone(),
            id: self.repo_id(found.id),
            name: repo.into(),
        };
        Ok(Arc::new(GitLabProject::new(repo, found, self.api.clone(), Arc::clone(&self.seen))))
    }
}

/// What GitLab says of a project (<https://docs.gitlab.com/api/projects/#get-a-single-project>).
#[derive(Debug, Serialize, Deserialize)]
struct Project {
    id: u64,
    path_with_namespace: String,
    http_url_to_repo: String,
    web_url: String,
    /// Not there while the project has no commit.
    #[serde(default)]
    default_branch: Option<String>,
    /// `public`, `internal` or `private`; told to who is known.
    #[serde(default)]
    visibility: Option<String>,
}

/// What a driver allows itself. GitLab.com refuses more than 2,000 calls a minute of one user, and more
/// than 60 notes (<https://docs.gitlab.com/user/gitlab_com/#rate-limits-on-gitlabcom>). A self-managed
/// GitLab tells its own limits, which come first where they are lower.
const LIMITS: BudgetLimits = BudgetLimits {
    concurrency: 32,
    points: 1_800,
    content_a_minute: 55,
    content_an_hour: 3_000,
    reserve: 10,
};

/// Describes a [`GitLabDriver`].
#[derive(Debug)]
pub struct GitLabDriverBuilder {
    base: String,
    credentials: GitLabCredentials,
    keyring: Option<Keyring>,
    clone_token: Option<HostSecret>,
    allowed: Vec<String>,
    clock: SharedClock,
    limits: BudgetLimits,
    client: ClientOptions,
    memory_bytes: u64,
}

impl Default for GitLabDriverBuilder {
    fn default() -> Self {
        Self {
            base: "https://gitlab.com".to_owned(),
            credentials: GitLabCredentials::anonymous(),
            keyring: None,
            clone_token: None,
            allowed: Vec::new(),
            clock: Arc::new(SystemClock),
            limits: LIMITS,
            client: ClientOptions::default(),
            memory_bytes: 64 << 20,
        }
    }
}

impl GitLabDriverBuilder {
    /// The address of the GitLab: `https://gitlab.com` (the default), or a self-managed one, with the
    /// path below which it lies when it has one.
    #[must_use]
    pub fn base(mut self, address: impl Into<String>) -> Self {
        self.base = address.into();
        self
    }

    /// What GitLab is shown; by default nothing, which can read public projects.
    #[must_use]
    pub fn credentials(mut self, credentials: GitLabCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Where the secrets that the credentials name are, and in which tenant.
    #[must_use]
    pub fn secrets(mut self, tenant: Tenant, store: Arc<dyn SecretStore>) -> Self {
        self.keyring = Some(Keyring { tenant, store });
        self
    }

    /// A token that runs are handed to clone with: one with the scope `read_repository` alone. Without
    /// it runs get no credential, for the driver's own can do too much.
    #[must_use]
    pub fn clone_token(mut self, token: impl Into<HostSecret>) -> Self {
        self.clone_token = Some(token.into());
        self
    }

    /// Allows the projects of a [pattern](Pattern): `acme/api`, `acme/*`, `acme/**` with subgroups. May
    /// be called several times; when it is never called, all that the token can reach are allowed.
    /// Case does not matter, as at GitLab.
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

    /// Reaches GitLab through this proxy. The environment is not asked for one.
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

    /// How many calls go on at the same time: 32 by default, at most 100.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = calls;
        self
    }

    /// How many calls are made a minute, where GitLab tells no lower limit: 1,800 by default.
    #[must_use]
    pub fn calls_a_minute(mut self, calls: u32) -> Self {
        self.limits.points = calls.max(1);
        self
    }

    /// The part of the limit that GitLab tells, in per cent, that polls and other background work
    /// never touch; 10 by default. All but polls of what was read before leave as much again.
    #[must_use]
    pub fn reserve(mut self, per_cent: u8) -> Self {
        self.limits.reserve = per_cent;
        self
    }

    /// Makes the driver. Nothing is asked of GitLab yet.
    ///
    /// # Errors
    ///
    /// `Invalid` for an address that is none, a pattern that is none, a certificate that cannot be
    /// read, a secret that is named while there is no store, and a token that would go over plain
    /// http to another machine.
    pub fn build(self) -> Result<GitLabDriver> {
        const OPERATION: &str = "build the GitLab driver";
        let token = self.credentials.0;
        let (mut base, host) = base_address(
            OPERATION,
            &self.base,
            "https://gitlab.com or https://HOST",
            token.is_some(),
        )?;
        let below = base.path().trim_end_matches('/');
        let path = format!("{}/api/v4", below.strip_suffix("/api/v4").unwrap_or(below));
        base.set_path(&path);
        check_named(OPERATION, token.iter().chain(&self.clone_token), self.keyring.as_ref())?;
        let allowed = allowed_patterns(OPERATION, &self.allowed)?;
        let governor = Governor::new(self.limits, Arc::clone(&self.clock));
        let transport = Arc::new(Transport::new(base, governor, &self.client)?);
        let authorizer = Authorizer::new(token, self.keyring, self.clone_token);
        let conditional = ConditionalCache::new(self.memory_bytes / 2);
        Ok(GitLabDriver {
            host: host.into(),
            allowed: allowed.into(),
            api: Api::new(transport, authorizer, conditional, self.clock),
            seen: Arc::new(Seen::new(self.memory_bytes / 2)),
        })
    }
}
