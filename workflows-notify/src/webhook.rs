//! A webhook of somebody's own: JSON over HTTP, signed, and safe against repetition.
//!
//! The headers are those of <https://www.standardwebhooks.com>, for which there are libraries in
//! many languages: `webhook-id` stays the same when a delivery is repeated, `webhook-timestamp` is
//! when this try was made, and `webhook-signature` is the HMAC-SHA256 over
//! `<id>.<timestamp>.<body>`. A receiver refuses what is not signed or older than a few minutes, and
//! does nothing for an id that it has seen: [`WebhookSecret::verify`] does the first two.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, SharedClock, SystemClock,
};

use crate::{
    http::{Address, Http, said},
    secret::NotifierSecret,
};

const OPERATION: &str = "call a webhook";
/// In bytes; of an answer only its status counts.
const ANSWER: usize = 4 << 10;
/// A shorter key is guessed too easily.
const SHORTEST_KEY: usize = 16;

/// Posts what happened to an address.
///
/// The body is `{"id", "transition", "at", "run"}`, the run in the shape of
/// [`RunView`](workflows_core::RunView). Any 2xx is an acknowledgement.
#[derive(Debug)]
pub struct WebhookNotifier {
    http: Http,
    url: Address,
    secret: NotifierSecret,
    headers: Vec<(HeaderName, NotifierSecret)>,
}

impl WebhookNotifier {
    /// Posts to this address, signed with this secret: 16 bytes or more, or `whsec_` and their
    /// base64.
    pub fn to(url: impl Into<String>, secret: impl Into<NotifierSecret>) -> WebhookBuilder {
        WebhookBuilder {
            url: url.into(),
            secret: secret.into(),
            headers: Vec::new(),
            clock: Arc::new(SystemClock),
            root_certificates: Vec::new(),
        }
    }
}

/// What a [`WebhookNotifier`] is made of.
pub struct WebhookBuilder {
    url: String,
    secret: NotifierSecret,
    headers: Vec<(String, NotifierSecret)>,
    clock: SharedClock,
    root_certificates: Vec<Vec<u8>>,
}

impl fmt::Debug for WebhookBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookBuilder").finish_non_exhaustive()
    }
}

impl WebhookBuilder {
    /// Sends a header besides, such as `authorization`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<NotifierSecret>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Where the time comes from.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Trusts these certificate authorities (PEM) besides those of the system.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// The notifier.
    ///
    /// # Errors
    ///
    /// `Invalid` when the address or a header cannot be one.
    pub fn build(self) -> Result<WebhookNotifier> {
        Ok(WebhookNotifier {
            http: Http::new(self.clock, &self.root_certificates)?,
            url: Address::new(&self.url, "the webhook's address")?,
            secret: self.secret,
            headers: headers(self.headers)?,
        })
    }
}

/// Names of headers, checked.
pub(crate) fn headers(
    given: Vec<(String, NotifierSecret)>,
) -> Result<Vec<(HeaderName, NotifierSecret)>> {
    let check = |(name, value): (String, NotifierSecret)| {
        let parsed = HeaderName::try_from(&name).map_err(|_| {
            Error::invalid("build a notifier", "a header has a name that is none")
                .with("header", format!("{name:?}"))
        })?;
        Ok((parsed, value))
    };
    given.into_iter().map(check).collect()
}

/// The present values of headers, which are not shown.
pub(crate) async fn values(
    headers: &[(HeaderName, NotifierSecret)],
) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let mut values = Vec::with_capacity(headers.len());
    for (name, secret) in headers {
        let value = secret.present().await?;
        let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| {
            Error::invalid(OPERATION, "a header's value holds what no header may")
                .with("header", name)
        })?;
        value.set_sensitive(true);
        values.push((name.clone(), value));
    }
    Ok(values)
}

/// What a receiver said, without the secrets that it was sent.
pub(crate) fn repeated(
    body: &[u8],
    address: &Address,
    headers: &[(HeaderName, HeaderValue)],
    signature: &str,
) -> String {
    let of_address = address.secrets();
    let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
    // Such as `Bearer` and a token.
    let words = values.clone().flat_map(|value| value.rsplit(' ').take(1));
    let of_address = of_address.iter().map(String::as_str);
    let secrets: Vec<&str> = values.chain(words).chain(of_address).chain([signature]).collect();
    said(body, &secrets)
}

#[async_trait]
impl Notifier for WebhookNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let body = json!({
            "id": notification.key,
            "transition": notification.transition,
            "at": notification.at,
            "run": notification.run,
        })
        .to_string();
        let secret = WebhookSecret::new(self.secret.present().await?)?;
        let (id, now) = (notification.key.as_str(), self.http.now());
        let signature = secret.sign(id, now, body.as_bytes());
        let mut request = self
            .http
            .post(self.url.url())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", &signature);
        let headers = values(&self.headers).await?;
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let answer = self.http.exchange(OPERATION, request.body(body), ANSWER).await?;
        if answer.status.is_success() {
            return Ok(Delivered::default());
        }
        Err(Error::new(self.http.refusal(&answer), OPERATION, "the receiver does not take it")
            .with("status", answer.status.as_u16())
            .with("it says", repeated(&answer.body, &self.url, &headers, &signature)))
    }

    /// The secret is looked at; whether the receiver is there shows when it is sent something.
    async fn validate(&self) -> Result<()> {
        WebhookSecret::new(self.secret.present().await?)?;
        values(&self.headers).await.map(|_| ())
    }
}

/// The key that a sender and a receiver share.
#[derive(Debug)]
pub struct WebhookSecret(SecretString);

impl WebhookSecret {
    /// A key of 16 bytes or more, or `whsec_` and its base64.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is shorter, or no base64.
    pub fn new(secret: SecretString) -> Result<Self> {
        let this = Self(secret);
        if this.key()?.len() < SHORTEST_KEY {
            return Err(Error::invalid(
                "read a webhook's secret",
                "it has fewer than 16 bytes; make one with `openssl rand -base64 32`",
            ));
        }
        Ok(this)
    }

    fn key(&self) -> Result<Vec<u8>> {
        match self.0.expose_secret().strip_prefix("whsec_") {
            None => Ok(self.0.expose_secret().as_bytes().to_vec()),
            Some(encoded) => BASE64.decode(encoded.as_bytes()).map_err(|_| {
                let why = "what stands behind `whsec_` is not base64";
                Error::invalid("read a webhook's secret", why)
            }),
        }
    }

    fn mac(&self, id: &str, at: Timestamp, body: &[u8]) -> Hmac<Sha256> {
        // It was readable when this was made, and HMAC takes keys of any length.
        let key = self.key().unwrap_or_default();
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(format!("{id}.{}.", at.as_second()).as_bytes());
        mac.update(body);
        mac
    }

    fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let signature = self.mac(id, at, body).finalize().into_bytes();
        format!("v1,{}", BASE64.encode(&signature))
    }

    /// For receivers: whether a request was signed with this secret, at most so long ago. `id`,
    /// `timestamp` and `signature` are the headers `webhook-id`, `webhook-timestamp` and
    /// `webhook-signature`. A receiver that remembers the ids of the last `tolerance` has seen every
    /// repetition.
    ///
    /// # Errors
    ///
    /// `Denied` when it was not.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now: Timestamp,
        tolerance: SignedDuration,
    ) -> Result<()> {
        let refuse = |why: &str| Error::denied("verify a webhook", why.to_owned());
        let at: i64 = timestamp.parse().map_err(|_| refuse("the timestamp is no number"))?;
        let at = Timestamp::from_second(at).map_err(|_| refuse("the timestamp is no time"))?;
        if now.duration_since(at).abs() > tolerance {
            return Err(refuse("it was signed too long ago, or the clocks differ"));
        }
        let signatures = signature.split(' ').filter_map(|one| one.strip_prefix("v1,"));
        for given in signatures.take(10) {
            // Compared in constant time.
            if let Ok(given) = BASE64.decode(given.as_bytes())
                && self.mac(id, at, body).verify_slice(&given).is_ok()
            {
                return Ok(());
            }
        }
        Err(refuse("it was not signed with this secret"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example of the specification, "Signature scheme".
        let secret =
            WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into()).unwrap();
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_was_changed_or_is_old_is_refused() {
        let secret = |text: &str| WebhookSecret::new(text.to_owned().into()).unwrap();
        let ours = secret("a secret of many bytes");
        let at = Timestamp::from_second(1_000).unwrap();
        let signature = ours.sign("id", at, b"body");
        let verify = |secret: &WebhookSecret, id: &str, at: &str, body: &[u8], now: i64| {
            let now = Timestamp::from_second(now).unwrap();
            let signatures = format!("v2,x v1,AAAA {signature}");
            secret.verify(id, at, &signatures, body, now, SignedDuration::from_mins(5)).is_ok()
        };
        assert!(verify(&ours, "id", "1000", b"body", 1_200));
        assert!(!verify(&ours, "id", "1000", b"body", 1_301));
        assert!(!verify(&ours, "id", "1000", b"body", 600));
        assert!(!verify(&ours, "id", "1001", b"body", 1_000));
        assert!(!verify(&ours, "id", "x", b"body", 1_000));
        assert!(!verify(&ours, "di", "1000", b"body", 1_000));
        assert!(!verify(&ours, "id", "1000", b"bodi", 1_000));
        assert!(!verify(&secret("another secret of bytes"), "id", "1000", b"body", 1_000));
        assert!(WebhookSecret::new("short".to_owned().into()).is_err());
        assert!(WebhookSecret::new("whsec_!".to_owned().into()).is_err());
    }
}
