//! Who may do what.

use std::{collections::BTreeMap, fmt, fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{
        NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    },
};
use kube::{Api, Client, api::PostParams};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use workflows_core::{Error, Result, hash_of};

use crate::{error::from_kube, resources::GROUP};

/// Says who a caller is and what they may do.
#[async_trait]
pub trait Access: Debug + Send + Sync + 'static {
    /// The owner of a bearer token.
    ///
    /// # Errors
    ///
    /// `Denied` when it is nobody's, `Transient` when that cannot be found out now.
    async fn caller(&self, token: &SecretString) -> Result<Caller>;

    /// Whether a caller may do this.
    ///
    /// # Errors
    ///
    /// `Transient` when that cannot be found out now.
    async fn allows(&self, caller: &Caller, asked: &Asked<'_>) -> Result<bool>;
}

/// A caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Caller {
    /// Who it is.
    pub user: String,
    /// The cluster's own id of them.
    pub uid: Option<String>,
    /// Which groups they belong to.
    pub groups: Vec<String>,
    /// What else the cluster knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// A caller of whom only the name is known.
    pub fn named(user: impl Into<String>) -> Self {
        Self { user: user.into(), ..Self::default() }
    }
}

/// What a caller wants, in the words of roles: a verb on a resource of the group
/// `workflows.tekton.dev`, such as `create` on `runs/cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// The namespace; empty for what is about the whole controller.
    pub namespace: &'a str,
    /// The verb: `get`, `list`, `create`.
    pub verb: &'a str,
    /// The resource: `runs`, `events`, `approvals`, `workflows`, `queues`, `notifications`,
    /// `notifiers`, `schedules`; empty for the path `/v1/health`.
    pub resource: &'a str,
    /// Its part; empty for the whole.
    pub part: &'a str,
    /// The one that it is about; empty for all.
    pub name: &'a str,
}

/// Asks the cluster, by TokenReview and SubjectAccessReview, so that roles say who may do what:
///
/// ```yaml
/// rules:
/// - { apiGroups: [workflows.tekton.dev], resources: [runs, runs/log, events], verbs: [get, list] }
/// - { apiGroups: [workflows.tekton.dev], resources: [runs/cancel, runs/rerun, approvals], verbs: [create] }
/// ```
///
/// Answers are kept for ten seconds. It needs `create` on `tokenreviews` and `subjectaccessreviews`.
#[derive(Clone)]
pub struct ClusterAccess {
    client: Client,
    callers: Cache<String, Caller>,
    verdicts: Cache<String, bool>,
}

impl Debug for ClusterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAccess").finish_non_exhaustive()
    }
}

impl ClusterAccess {
    /// How long an answer counts.
    const FRESH: Duration = Duration::from_secs(10);
    const KEPT: u64 = 10_000;

    /// Asks this cluster.
    pub fn new(client: Client) -> Self {
        let callers = Cache::builder().max_capacity(Self::KEPT).time_to_live(Self::FRESH).build();
        let verdicts = Cache::builder().max_capacity(Self::KEPT).time_to_live(Self::FRESH).build();
        Self { client, callers, verdicts }
    }

    async fn review_token(&self, token: &SecretString) -> Result<Caller> {
        const OPERATION: &str = "find out who asks";
        #[allow(
            clippy::useless_conversion,
            reason = "of some versions of Kubernetes the token is optional in the type"
        )]
        let token = token.expose_secret().to_owned().into();
        let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| unavailable(OPERATION, error))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.unwrap_or_default();
        match user.username {
            Some(name) if status.authenticated == Some(true) && !name.is_empty() => Ok(Caller {
                user: name,
                uid: user.uid,
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            }),
            _ => Err(Error::denied(OPERATION, "the cluster does not know this token (any more)")),
        }
    }

    async fn review_access(&self, caller: &Caller, asked: &Asked<'_>) -> Result<bool> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut spec = SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            uid: caller.uid.clone(),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        if asked.resource.is_empty() {
            spec.non_resource_attributes = Some(NonResourceAttributes {
                path: Some("/v1/health".to_owned()),
                verb: text(asked.verb),
            });
        } else {
            spec.resource_attributes = Some(ResourceAttributes {
                namespace: text(asked.namespace),
                verb: text(asked.verb),
                group: Some(GROUP.to_owned()),
                resource: text(asked.resource),
                subresource: text(asked.part),
                name: text(asked.name),
                ..ResourceAttributes::default()
            });
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| unavailable("find out who may", error))?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

/// Whatever keeps us from asking is no fault of the caller's.
fn unavailable(operation: &'static str, error: kube::Error) -> Error {
    let cause = from_kube(operation, error, Timestamp::now());
    Error::transient(operation, "the cluster cannot be asked now").caused_by(cause)
}

#[async_trait]
impl Access for ClusterAccess {
    async fn caller(&self, token: &SecretString) -> Result<Caller> {
        let key = hash_of(&[token.expose_secret()]);
        if let Some(known) = self.callers.get(&key).await {
            return Ok(known);
        }
        let caller = self.review_token(token).await?;
        self.callers.insert(key, caller.clone()).await;
        Ok(caller)
    }

    async fn allows(&self, caller: &Caller, asked: &Asked<'_>) -> Result<bool> {
        let key = format!("{caller:?} {asked:?}");
        if let Some(known) = self.verdicts.get(&key).await {
            return Ok(known);
        }
        let verdict = self.review_access(caller, asked).await?;
        self.verdicts.insert(key, verdict).await;
        Ok(verdict)
    }
}
