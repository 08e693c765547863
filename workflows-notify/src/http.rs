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

/// What a receiver said, for an error: one line of its beginning. It may repeat what it was sent, so
/// these secrets are taken out, and whatever is too long for a word.
pub(crate) fn said(body: &[u8], secrets: &[&str]) -> String {
    const MOST: usize = 200;
    const LONGEST_WORD: usize = 24;
    let mut text = String::from_utf8_lossy(body).into_owned();
    let mut secrets: Vec<&str> = secrets.iter().copied().filter(|one| !one.is_empty()).collect();
    secrets.sort_by_key(|one| std::cmp::Reverse(one.len()));
    for secret in secrets {
        text = text.replace(secret, "***").replace(&secret.replace('/', "\\/"), "***");
    }
    let is_of_word = |c: char| c.is_alphanumeric() || "+/=_-.%~\\".contains(c);
    let mut shown = String::new();
    let mut rest = text.trim();
    while let Some(next) = rest.chars().next().filter(|_| shown.len() < 4 * MOST) {
        let end = rest.find(|c| is_of_word(c) != is_of_word(next)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let is_secret = is_of_word(next) && part.chars().count() > LONGEST_WORD;
        shown.push_str(if is_secret { "***" } else { part });
        rest = after;
    }
    crate::describe::harmless(&shown).chars().take(MOST).collect()
}

/// An address of which only the host is shown: whoever knows the rest may be let in by it.
#[derive(Clone)]
pub(crate) struct Address(Url);

impl Address {
    /// # Errors
    ///
    /// `Invalid` when a notifier cannot send there; `what` names it.
    #[cfg(feature = "webhook")]
    pub(crate) fn new(text: &str, what: &str) -> Result<Self> {
        address(text, what).map(Self)
    }

    #[cfg(feature = "webhook")]
    pub(crate) fn url(&self) -> Url {
        self.0.clone()
    }

    /// What of it a receiver may repeat and nobody should read.
    pub(crate) fn secrets(&self) -> Vec<String> {
        const LEAST: usize = 6;
        let whole = [self.0.as_str(), self.0.path(), self.0.query().unwrap_or_default()];
        let segments = self.0.path_segments().into_iter().flatten().map(str::to_owned);
        let values = self.0.query_pairs().map(|(_, value)| value.into_owned());
        let all = whole.into_iter().map(str::to_owned).chain(segments).chain(values);
        all.filter(|one| one.len() >= LEAST).collect()
    }
}

impl From<Url> for Address {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/...", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_repeats_is_no_secret() {
        let secrets = ["Bearer abc", "abc"];
        let said = |text: &str| said(text.as_bytes(), &secrets);
        assert_eq!(said("no: Bearer abc is unknown"), "no: *** is unknown");
        assert_eq!(said("no_service"), "no_service");
        assert_eq!(said(r#"{"error":"abc"}"#), r#"{"error":"***"}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(said(&format!("{signature} is wrong")), "v1,*** is wrong");
        let escaped = signature.replace('/', "\\/");
        assert_eq!(said(&escaped), "v1,***");
        assert!(!said(&format!("{}abc", "x ".repeat(99))).contains('b'));
        assert_eq!(said(&"x ".repeat(500)).chars().count(), 200);
    }

    #[test]
    fn of_an_address_the_host_is_shown() {
        let url = Url::parse("https://hooks.example.com/in/s3cr3t-path?token=s3cr3t").unwrap();
        let address = Address::from(url);
        assert_eq!(format!("{address:?}"), "https://hooks.example.com/...");
        let secrets = address.secrets();
        for secret in ["s3cr3t-path", "s3cr3t", "/in/s3cr3t-path", "token=s3cr3t"] {
            assert!(secrets.iter().any(|one| one == secret), "{secret}: {secrets:?}");
        }
    }
}
