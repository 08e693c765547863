//! One call to GitHub: sent under a credential's budget, with a time limit, its answer bounded.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use metrics::counter;
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
    },
    redirect,
};
use serde::Deserialize;
use url::Url;
use workflows_core::{Error, ErrorKind, Result};

use super::{
    budget::{Cost, Governor, Principal, Priority},
    route::Route,
};
use crate::printable::printable;

/// GitHub's own media type, in version 3 of the API.
pub(super) const JSON: &str = "application/vnd.github+json";
const API_VERSION: &str = "2022-11-28";
const USER_AGENT: &str = concat!("workflows-scm/", env!("CARGO_PKG_VERSION"));

/// What is to be asked.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What errors say was being done.
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) accept: &'static str,
    /// JSON.
    pub(super) body: Option<Bytes>,
    pub(super) priority: Priority,
    pub(super) cost: Cost,
    /// A longer answer is refused.
    pub(super) max_bytes: usize,
}

impl Call {
    /// The limit of GitHub's that it counts against.
    fn resource(&self) -> &'static str {
        if self.route.path() == GRAPHQL { "graphql" } else { "core" }
    }

    pub(super) fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, self.operation, message).with("route", &self.route)
    }
}

/// The route of GraphQL, which does not lie below the REST API's base.
pub(super) const GRAPHQL: &str = "/graphql";

/// Who a call is made as.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) principal: Principal,
    /// Grows when the principal's token is another one.
    pub(super) generation: u64,
    /// Marked as sensitive, so that its `Debug` output is a placeholder.
    pub(super) authorization: Option<HeaderValue>,
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Until when GitHub refuses, when it refused for a limit.
    pub(super) limited_until: Option<Timestamp>,
}

impl AsRef<Answer> for Answer {
    fn as_ref(&self) -> &Answer {
        self
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's clock.
    pub(super) fn date(&self) -> Option<Timestamp> {
        Some(jiff::fmt::rfc2822::parse(self.header(DATE.as_str())?).ok()?.timestamp())
    }
}

pub(super) struct Transport {
    client: Client,
    base: Url,
    graphql: Url,
    governor: Arc<Governor>,
    call_timeout: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("base", &self.base.as_str())
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

/// How the client connects.
#[derive(Debug)]
pub(super) struct ClientOptions {
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
    pub(super) root_certificates: Vec<Vec<u8>>,
    pub(super) proxy: Option<String>,
}

impl Transport {
    pub(super) fn new(base: Url, governor: Arc<Governor>, options: &ClientOptions) -> Result<Self> {
        let mut graphql = base.clone();
        let path = base.path().trim_end_matches('/');
        let above = path.strip_suffix("/v3").unwrap_or(path);
        graphql.set_path(&format!("{above}{GRAPHQL}"));
        Ok(Self {
            client: client(options)?,
            base,
            graphql,
            governor,
            call_timeout: options.call_timeout,
        })
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) fn governor(&self) -> &Arc<Governor> {
        &self.governor
    }

    fn address(&self, call: &Call) -> Url {
        if call.route.path() == GRAPHQL {
            return self.graphql.clone();
        }
        call.route.at(&self.base)
    }

    /// Makes a call. Nothing is repeated, but a call that GitHub sends elsewhere on the same host
    /// (a renamed repository) is made there, once.
    ///
    /// # Errors
    ///
    /// `RateLimited` when the budget holds it back, `Transient` when no whole answer came in time,
    /// `Invalid` when the answer is too long. What an answer says is for [`check`].
    pub(super) async fn exchange(
        &self,
        call: &Call,
        grant: &Grant,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer> {
        let made = tokio::time::timeout(self.call_timeout, self.make(call, grant, etag)).await;
        let made = made.unwrap_or_else(|_| {
            Err(call.failed(ErrorKind::Transient, "GitHub did not answer in time"))
        });
        let outcome = match &made {
            Ok(answer) if answer.limited_until.is_some() => "limited",
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED => "not_modified",
            Ok(answer) if answer.status.is_server_error() => "server_error",
            Ok(answer) if answer.status.is_client_error() => "refused",
            Ok(_) => "answered",
            Err(error) if matches!(error.kind(), ErrorKind::RateLimited { .. }) => "held_back",
            Err(_) => "failed",
        };
        counter!("workflows_github_calls_total", "outcome" => outcome).increment(1);
        made
    }

    async fn make(&self, call: &Call, grant: &Grant, etag: Option<&HeaderValue>) -> Result<Answer> {
        let mut at = self.address(call);
        let first = self.send(call, grant, etag, at.clone()).await?;
        if !first.status.is_redirection() || first.status == StatusCode::NOT_MODIFIED {
            return Ok(first);
        }
        let location = first.header(LOCATION.as_str()).and_then(|link| at.join(link).ok());
        let Some(next) = location.filter(|next| next.origin() == at.origin()) else {
            return Err(call.failed(
                ErrorKind::Invalid,
                "GitHub sends the call to another host, which is not followed",
            ));
        };
        at.set_path(next.path());
        at.set_query(next.query());
        let second = self.send(call, grant, etag, at).await?;
        if second.status.is_redirection() && second.status != StatusCode::NOT_MODIFIED {
            return Err(call.failed(ErrorKind::Invalid, "GitHub sends the call on and on"));
        }
        Ok(second)
    }

    async fn send(
        &self,
        call: &Call,
        grant: &Grant,
        etag: Option<&HeaderValue>,
        at: Url,
    ) -> Result<Answer> {
        let pass = self
            .governor
            .admit(&grant.principal, call.priority, call.resource(), call.cost)
            .await
            .map_err(|held_back| {
                call.failed(held_back.kind(), held_back.message()).caused_by(held_back)
            })?;
        let mut request = self
            .client
            .request(call.method.clone(), at)
            .header(ACCEPT, call.accept)
            .header("X-GitHub-Api-Version", API_VERSION);
        if let Some(authorization) = &grant.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag.clone());
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = request.send().await.map_err(|error| failed(call, error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(call, response).await?;
        let message = if status.is_client_error() { message_of(&body) } else { String::new() };
        let limited_until = self.governor.observe(&grant.principal, status, &headers, &message);
        drop(pass);
        Ok(Answer { status, headers, body, limited_until })
    }
}

/// The HTTP client of a driver.
fn client(options: &ClientOptions) -> Result<Client> {
    const OPERATION: &str = "build the GitHub driver";
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .connect_timeout(options.connect_timeout);
    for pem in &options.root_certificates {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
            Error::invalid(OPERATION, "a root certificate cannot be read; it must be PEM")
                .caused_by(error)
        })?;
        if certificates.is_empty() {
            return Err(Error::invalid(OPERATION, "a root certificate holds no PEM block"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder = match &options.proxy {
        None => builder.no_proxy(),
        Some(address) => builder.proxy(reqwest::Proxy::all(address).map_err(|error| {
            Error::invalid(OPERATION, "the proxy's address is not a URL").caused_by(error)
        })?),
    };
    builder.build().map_err(|error| {
        Error::invalid(OPERATION, "the HTTP client cannot be set up").caused_by(error)
    })
}

async fn read(call: &Call, response: Response) -> Result<Bytes> {
    // A refusal's text is only shown; an answer is used.
    let most = if response.status().is_success() { call.max_bytes } else { 64 << 10 };
    let too_long = || {
        call.failed(ErrorKind::Invalid, "the answer is longer than what is read of one")
            .with("limit", most)
    };
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            call.failed(ErrorKind::Transient, "the answer broke off").caused_by(error.without_url())
        })?;
        if body.len() + chunk.len() > most {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failed(call: &Call, error: reqwest::Error) -> Error {
    let what = if error.is_timeout() {
        "GitHub did not answer in time"
    } else if error.is_connect() {
        "GitHub cannot be reached"
    } else if error.is_builder() {
        return call.failed(ErrorKind::Invalid, "the request cannot be made");
    } else {
        "the request failed"
    };
    call.failed(ErrorKind::Transient, what).caused_by(error.without_url())
}

/// The body of a refusal (<https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api>).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    message: Option<String>,
    errors: Option<serde_json::Value>,
}

/// What GitHub said.
fn message_of(body: &[u8]) -> String {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let mut message = refusal.message.unwrap_or_default();
    if let Some(errors) = refusal.errors {
        message.push_str(&format!(" {errors}"));
    }
    message
}

/// The answer, when it is a success (or says that nothing changed); else the error that it means.
pub(super) fn check<A: AsRef<Answer>>(call: &Call, grant: &Grant, made: A) -> Result<A> {
    let answer = made.as_ref();
    let status = answer.status;
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(made);
    }
    let said = message_of(&answer.body);
    let (kind, what): (ErrorKind, &str) = match status {
        _ if answer.limited_until.is_some() => (
            ErrorKind::RateLimited { until: answer.limited_until },
            "GitHub asks to come back later",
        ),
        StatusCode::UNAUTHORIZED => match grant.principal {
            Principal::Anonymous => {
                (ErrorKind::Denied, "GitHub asks for a credential; configure an App or a token")
            }
            Principal::App => (
                ErrorKind::Denied,
                "GitHub does not accept the App's key; check the App's id and whether the key was \
                 revoked",
            ),
            _ => (
                ErrorKind::Denied,
                "GitHub does not accept the token; it may have expired or been revoked",
            ),
        },
        StatusCode::FORBIDDEN if said.to_ascii_lowercase().contains("suspended") => (
            ErrorKind::Denied,
            "the App's installation is suspended; its owner can unsuspend it on the installation's \
             settings page",
        ),
        StatusCode::FORBIDDEN => {
            (ErrorKind::Denied, "GitHub refuses; the credential may lack a permission")
        }
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            (ErrorKind::Denied, "GitHub has blocked access")
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            (ErrorKind::NotFound, "it is not there, or the credential may not see it")
        }
        StatusCode::CONFLICT => (ErrorKind::Conflict, "GitHub reports a conflict"),
        StatusCode::REQUEST_TIMEOUT => (ErrorKind::Transient, "GitHub gave up waiting"),
        status if status.is_server_error() => (ErrorKind::Transient, "GitHub has failed"),
        _ => (ErrorKind::Invalid, "GitHub does not take the request"),
    };
    let mut error = call.failed(kind, what).with("status", status.as_u16());
    if !said.is_empty() {
        error = error.with("GitHub says", printable(&said));
    }
    // What a fine-grained token or an App would need for this call.
    if let Some(needed) = answer.header("x-accepted-github-permissions")
        && kind == ErrorKind::Denied
    {
        error = error.with("needs", printable(needed));
    }
    Err(error)
}
