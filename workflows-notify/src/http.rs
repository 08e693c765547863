//! One request to a receiver: with a time limit, its answer bounded, nothing repeated or followed.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use url::Url;
use workflows_core::{Error, ErrorKind, Result, SharedClock};

const USER_AGENT: &str = concat!("workflows-notify/", env!("CARGO_PKG_VERSION"));
/// How long the whole of a request may take; an engine waits for 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A receiver that asks for more patience is asked again sooner.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// What came back, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The way to a receiver.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    clock: SharedClock,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Trusts the system's certificate authorities, and these (PEM).
    pub(crate) fn new(clock: SharedClock, root_certificates: &[Vec<u8>]) -> Result<Self> {
        const OPERATION: &str = "build a notifier";
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        for pem in root_certificates {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
                Error::invalid(OPERATION, "a root certificate cannot be read; it must be PEM")
                    .caused_by(error)
            })?;
            if certificates.is_empty() {
                return Err(Error::invalid(OPERATION, "a root certificate holds no PEM block"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| {
            Error::invalid(OPERATION, "the HTTP client cannot be set up").caused_by(error)
        })?;
        Ok(Self { client, clock })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }

    /// Sends a request and reads its answer, at most so many bytes.
    ///
    /// # Errors
    ///
    /// `Transient` when no whole answer came in time: whether the request came to something is
    /// unknown then.
    pub(crate) async fn exchange(
        &self,
        operation: &'static str,
        request: RequestBuilder,
        most: usize,
    ) -> Result<Answer> {
        let failed = |error: reqwest::Error| {
            let what = if error.is_timeout() {
                "the receiver did not answer in time"
            } else if error.is_connect() {
                "the receiver cannot be reached"
            } else if error.is_builder() {
                let why = "the request cannot be made; check the address and the headers";
                return Error::invalid(operation, why);
            } else {
                "the request broke off"
            };
            // An address may hold a secret.
            Error::transient(operation, what).caused_by(error.without_url())
        };
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(failed)?;
            let left = most.saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(left)]);
            if chunk.len() > left {
                break;
            }
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// What an answer's status means for a delivery, when it is no success.
    pub(crate) fn refusal(&self, answer: &Answer) -> ErrorKind {
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                ErrorKind::RateLimited { until: self.retry_after(&answer.headers) }
            }
            StatusCode::SERVICE_UNAVAILABLE if answer.headers.contains_key(RETRY_AFTER) => {
                ErrorKind::RateLimited { until: self.retry_after(&answer.headers) }
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => ErrorKind::Transient,
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::GONE => ErrorKind::Denied,
            status if status.is_server_error() => ErrorKind::Transient,
            _ => ErrorKind::Invalid,
        }
    }

    /// When a receiver wants to be asked again (RFC 9110, 10.2.3).
    pub(crate) fn retry_after(&self, headers: &HeaderMap) -> Option<Timestamp> {
        let now = self.clock.now();
        let latest = now.checked_add(LONGEST).ok()?;
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let at = match value.parse::<i64>() {
            Ok(seconds) => now
                .checked_add(SignedDuration::from_secs(seconds.clamp(0, LONGEST.as_secs())))
                .ok()?,
            Err(_) => jiff::fmt::rfc2822::parse(value).ok()?.timestamp(),
        };
        Some(at.clamp(now, latest))
    }
}

/// What a receiver said, for an error: one line of its beginning.
pub(crate) fn said(body: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * MOST)]);
    crate::describe::harmless(text.trim()).chars().take(MOST).collect()
}

/// An address that a notifier sends to.
pub(crate) fn address(text: &str, what: &str) -> Result<Url> {
    let refuse = |why: &str| Error::invalid("build a notifier", format!("{what} {why}"));
    let url = Url::parse(text).map_err(|_| refuse("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse("is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("holds a user or a password; use a header or a signature"));
    }
    Ok(url)
}
