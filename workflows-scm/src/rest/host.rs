//! What differs from host to host.

use std::{
    fmt::{Debug, Display},
    hash::Hash,
};

use async_trait::async_trait;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::Value;
use url::Url;
use workflows_core::{Error, ErrorKind, Result, matching::Pattern};

use super::{
    route::Route,
    transport::{Answer, Grant},
};

/// A kind of host: GitHub, GitLab.
#[async_trait]
pub(crate) trait Host: Debug + Sized + Send + Sync + 'static {
    /// Whose limits a call counts against.
    type Principal: Debug + Display + Clone + Ord + Hash + Send + Sync + 'static;
    /// What a call is about, which may tell whose credential it is made with.
    type Scope: Debug + Clone + Send + Sync + 'static;
    /// Who knows with what a call is made.
    type Authorizer: Authorize<Self>;

    /// For people.
    const NAME: &'static str;
    /// The media type of its answers.
    const JSON: &'static str;
    /// The media type of a file's bytes.
    const RAW: &'static str;
    /// Sent with each call.
    const HEADERS: &'static [(&'static str, &'static str)];
    /// Where it tells its limits.
    const LIMITS: LimitHeaders;
    /// How long the limits that it tells last.
    const WINDOW: SignedDuration;
    /// Whether "not modified" takes nothing of a limit that it tells, asked with a credential.
    const NOT_MODIFIED_IS_FREE: bool;
    /// What a write costs, when a read costs one.
    const POINTS_OF_A_WRITE: u32;
    const METRICS: MetricNames;

    /// The limit of the host's that a call counts against.
    fn resource(_route: &Route) -> &'static str {
        "core"
    }

    /// Where GraphQL is asked.
    fn graphql(base: &Url) -> Url;

    /// Whether a refusal with 403 is for a limit that no header tells.
    fn is_untold_limit(_message: &str) -> bool {
        false
    }

    /// What a refusal says; `None` for what its status alone says.
    fn refused(grant: &Grant<Self>, answer: &Answer, said: &str) -> Option<Refused>;

    /// What an answer adds to an error.
    fn add_to(error: Error, _answer: &Answer) -> Error {
        error
    }

    /// The kind of an error of GraphQL, which comes with status 200.
    fn graphql_kind(error: &Value, answer: &Answer) -> ErrorKind;
}

/// What a refusal means, and what it is told as.
pub(crate) type Refused = (ErrorKind, &'static str);

/// Knows with what a call is made.
#[async_trait]
pub(crate) trait Authorize<H: Host>: Debug + Send + Sync + 'static {
    /// The grant for a call about something.
    async fn grant(&self, scope: &H::Scope) -> Result<Grant<H>>;

    /// Takes in that the host did not accept a grant. Whether another try, with a new grant, makes
    /// sense.
    async fn refused(&self, refused: &Grant<H>, answer: &Answer) -> bool;
}

/// Names of headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitHeaders {
    pub(crate) limit: &'static str,
    pub(crate) remaining: &'static str,
    pub(crate) reset: &'static str,
    /// Which limit they are about.
    pub(crate) resource: Option<&'static str>,
}

/// Names of metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricNames {
    pub(crate) calls: &'static str,
    pub(crate) held_back: &'static str,
    pub(crate) remaining: &'static str,
    pub(crate) blocked_until: &'static str,
    pub(crate) points: &'static str,
    pub(crate) in_flight: &'static str,
    pub(crate) joined: &'static str,
}

/// What a status means at any host.
pub(super) fn meaning_of(status: StatusCode) -> Refused {
    match status {
        StatusCode::FORBIDDEN => {
            (ErrorKind::Denied, "the host refuses; the credential may lack a permission")
        }
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            (ErrorKind::Denied, "the host has blocked access")
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            (ErrorKind::NotFound, "it is not there, or the credential may not see it")
        }
        StatusCode::CONFLICT => (ErrorKind::Conflict, "the host reports a conflict"),
        StatusCode::REQUEST_TIMEOUT => (ErrorKind::Transient, "the host gave up waiting"),
        status if status.is_server_error() => (ErrorKind::Transient, "the host has failed"),
        _ => (ErrorKind::Invalid, "the host does not take the request"),
    }
}

/// Reads the address of a host's API, and checks that no credential is in it, or goes over plain http
/// to another machine. Returns it with the host's name, with its port where that is not the usual one.
pub(crate) fn base_address(
    operation: &'static str,
    text: &str,
    example: &'static str,
    has_credential: bool,
) -> Result<(Url, String)> {
    let base = Url::parse(text).map_err(|error| {
        Error::invalid(operation, format!("the base is no address; write {example}"))
            .caused_by(error)
    })?;
    let Some(host) = base.host_str().filter(|_| matches!(base.scheme(), "http" | "https")) else {
        return Err(
            Error::invalid(operation, "the base is not an http address").with("base", &base)
        );
    };
    if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
        return Err(Error::invalid(
            operation,
            "the base has a credential or a query in it; use `credentials`",
        ));
    }
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if base.scheme() == "http" && !is_here && has_credential {
        return Err(Error::invalid(
            operation,
            "a credential does not go over plain http to another machine; use https",
        )
        .with("base", &base));
    }
    let name = match base.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Ok((base, name))
}

/// The patterns of repositories that a driver allows. Case does not matter.
pub(crate) fn allowed_patterns(operation: &'static str, texts: &[String]) -> Result<Vec<Pattern>> {
    let pattern = |text: &String| {
        Pattern::new(&text.to_ascii_lowercase()).map_err(|problem| {
            Error::invalid(operation, problem).with("pattern", format!("{text:?}"))
        })
    };
    texts.iter().map(pattern).collect()
}
