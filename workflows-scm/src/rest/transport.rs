//! One call to a host: sent under a credential's budget, with a time limit, its answer bounded.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use metrics::counter;
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
    },
    redirect,
};
use serde::Deserialize;
use url::Url;
use workflows_core::{Error, ErrorKind, Result};

use super::{
    budget::{Cost, Governor, Priority},
    host::{Host, meaning_of},
    route::Route,
};
use crate::printable::printable;

const USER_AGENT: &str = concat!("workflows-scm/", env!("CARGO_PKG_VERSION"));

/// What is to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What errors say was being done.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) route: Route,
    pub(crate) accept: &'static str,
    /// JSON.
    pub(crate) body: Option<Bytes>,
    pub(crate) priority: Priority,
    pub(crate) cost: Cost,
    /// A longer answer is refused.
    pub(crate) max_bytes: usize,
}

impl Call {
    pub(crate) fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, self.operation, message).with("route", &self.route)
    }
}

/// Who a call is made as.
#[derive(Debug)]
pub(crate) struct Grant<H: Host> {
    pub(crate) principal: H::Principal,
    /// Grows when the principal's token is another one.
    pub(crate) generation: u64,
    /// Marked as sensitive, so that its `Debug` output is a placeholder.
    pub(crate) authorization: Option<HeaderValue>,
}

impl<H: Host> Clone for Grant<H> {
    fn clone(&self) -> Self {
        Self {
            principal: self.principal.clone(),
            generation: self.generation,
            authorization: self.authorization.clone(),
        }
    }
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Until when the host refuses, when it refused for a limit.
    pub(crate) limited_until: Option<Timestamp>,
}

impl AsRef<Answer> for Answer {
    fn as_ref(&self) -> &Answer {
        self
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's clock.
    #[cfg(feature = "github")]
    pub(crate) fn date(&self) -> Option<Timestamp> {
        Some(jiff::fmt::rfc2822::parse(self.header("date")?).ok()?.timestamp())
    }
}

pub(crate) struct Transport<H: Host> {
    client: Client,
    base: Url,
    graphql: Url,
    governor: Arc<Governor<H>>,
    call_timeout: Duration,
}

impl<H: Host> fmt::Debug for Transport<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("base", &self.base.as_str())
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

/// How the client connects.
#[derive(Debug)]
pub(crate) struct ClientOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) root_certificates: Vec<Vec<u8>>,
    pub(crate) proxy: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            root_certificates: Vec::new(),
            proxy: None,
        }
    }
}

impl<H: Host> Transport<H> {
    pub(crate) fn new(
        base: Url,
        governor: Arc<Governor<H>>,
        options: &ClientOptions,
    ) -> Result<Self> {
        Ok(Self {
            client: client(options)?,
            graphql: H::graphql(&base),
            base,
            governor,
            call_timeout: options.call_timeout,
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) fn governor(&self) -> &Arc<Governor<H>> {
        &self.governor
    }

    fn address(&self, call: &Call) -> Url {
        if call.route.is_graphql() {
            return self.graphql.clone();
        }
        call.route.at(&self.base)
    }

    /// Makes a call. Nothing is repeated, but a call that the host sends elsewhere on the same host
    /// (a renamed repository) is made there, once.
    ///
    /// # Errors
    ///
    /// `RateLimited` when the budget holds it back, `Transient` when no whole answer came in time,
    /// `Invalid` when the answer is too long. What an answer says is for [`check`].
    pub(crate) async fn exchange(
        &self,
        call: &Call,
        grant: &Grant<H>,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer> {
        let made = tokio::time::timeout(self.call_timeout, self.make(call, grant, etag)).await;
        let made = made.unwrap_or_else(|_| {
            Err(call.failed(ErrorKind::Transient, "the host did not answer in time"))
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
        counter!(H::METRICS.calls, "outcome" => outcome).increment(1);
        made
    }

    async fn make(
        &self,
        call: &Call,
        grant: &Grant<H>,
        etag: Option<&HeaderValue>,
    ) -> Result<Answer> {
        let mut at = self.address(call);
        let first = self.send(call, grant, etag, at.clone()).await?;
        if !first.status.is_redirection() || first.status == StatusCode::NOT_MODIFIED {
            return Ok(first);
        }
        let location = first.header(LOCATION.as_str()).and_then(|link| at.join(link).ok());
        let Some(next) = location.filter(|next| next.origin() == at.origin()) else {
            return Err(call.failed(
                ErrorKind::Invalid,
                "the host sends the call to another one, which is not followed",
            ));
        };
        at.set_path(next.path());
        at.set_query(next.query());
        let second = self.send(call, grant, etag, at).await?;
        if second.status.is_redirection() && second.status != StatusCode::NOT_MODIFIED {
            return Err(call.failed(ErrorKind::Invalid, "the host sends the call on and on"));
        }
        Ok(second)
    }

    async fn send(
        &self,
        call: &Call,
        grant: &Grant<H>,
        etag: Option<&HeaderValue>,
        at: Url,
    ) -> Result<Answer> {
        let may_be_free =
            H::NOT_MODIFIED_IS_FREE && etag.is_some() && grant.authorization.is_some();
        let cost = if may_be_free { Cost::Reread } else { call.cost };
        let pass = self
            .governor
            .admit(&grant.principal, call.priority, H::resource(&call.route), cost)
            .await
            .map_err(|held_back| {
                call.failed(held_back.kind(), held_back.message()).caused_by(held_back)
            })?;
        let mut request = self.client.request(call.method.clone(), at).header(ACCEPT, call.accept);
        for (name, value) in H::HEADERS {
            request = request.header(*name, *value);
        }
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
    const OPERATION: &str = "build the driver";
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
        "the host did not answer in time"
    } else if error.is_connect() {
        "the host cannot be reached"
    } else if error.is_builder() {
        return call.failed(ErrorKind::Invalid, "the request cannot be made");
    } else {
        "the request failed"
    };
    call.failed(ErrorKind::Transient, what).caused_by(error.without_url())
}

/// The body of a refusal. GitLab puts an object where fields are refused
/// (<https://docs.gitlab.com/api/rest/troubleshooting/>), and `error` where a parameter is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    message: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
    errors: Option<serde_json::Value>,
}

/// What the host said.
fn message_of(body: &[u8]) -> String {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let mut message = match refusal.message {
        Some(serde_json::Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => refusal.error.unwrap_or_default(),
    };
    // As OAuth writes refusals (RFC 6750): a word, and what it means.
    if let Some(description) = refusal.error_description {
        message.push_str(&format!(": {description}"));
    }
    if let Some(errors) = refusal.errors {
        message.push_str(&format!(" {errors}"));
    }
    message
}

/// The answer, when it is a success (or says that nothing changed); else the error that it means.
pub(crate) fn check<H: Host, A: AsRef<Answer>>(
    call: &Call,
    grant: &Grant<H>,
    made: A,
) -> Result<A> {
    let answer = made.as_ref();
    if answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED {
        return Ok(made);
    }
    let said = message_of(&answer.body);
    let (kind, what) = match answer.limited_until {
        Some(until) => {
            (ErrorKind::RateLimited { until: Some(until) }, "the host asks to come back later")
        }
        None => H::refused(grant, answer, &said).unwrap_or_else(|| meaning_of(answer.status)),
    };
    let mut error = call.failed(kind, what).with("status", answer.status.as_u16());
    if !said.is_empty() {
        error = error.with(format!("{} says", H::NAME), printable(&said));
    }
    Err(H::add_to(error, answer))
}
