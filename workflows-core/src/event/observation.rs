//! What a transport delivered.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SubjectClaim;
use crate::{DeliveryId, RepoRef, SourceName, Tenant};

/// What a transport delivered: a delivery id, a claim about a subject, the raw payload.
///
/// ```
/// use workflows_core::{
///     CommitId, Observation, RepoRef, SubjectClaim, Tenant,
///     event::{Before, RefClaim, Seen},
/// };
/// # fn main() -> Result<(), workflows_core::Error> {
/// let head: CommitId = "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse()?;
/// let observation = Observation::new(
///     Tenant::default(),
///     RepoRef { connection: "git".into(), id: "42".into(), name: "acme/api".into() },
///     "my-source".into(),
///     "delivery-1".into(),
///     Seen::Told,
///     SubjectClaim::Ref(RefClaim {
///         name: "refs/heads/main".into(),
///         after: Some(head),
///         before: Before::Was(None),
///         forced: None,
///     }),
/// );
/// assert_eq!(observation.claim.subject().as_str(), "refs/heads/main");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The tenant.
    pub tenant: Tenant,
    /// The repository.
    pub repo: RepoRef,
    /// Which source brought it.
    pub source: SourceName,
    /// The transport's id of the delivery. One that the ledger has seen from this source about this
    /// subject before is a duplicate, whatever it claims.
    pub delivery: DeliveryId,
    /// How the source knows.
    pub seen: Seen,
    /// What it claims.
    pub claim: SubjectClaim,
    /// Who did it, by the host's name, where the transport tells.
    pub sender: Option<Arc<str>>,
    /// When it happened, where the transport tells.
    pub occurred_at: Option<Timestamp>,
    /// The raw payload, for the escape hatch and for later questions.
    pub payload: Option<Payload>,
}

impl Observation {
    /// An observation without sender, time and payload.
    pub fn new(
        tenant: Tenant,
        repo: RepoRef,
        source: SourceName,
        delivery: DeliveryId,
        seen: Seen,
        claim: SubjectClaim,
    ) -> Self {
        Self {
            tenant,
            repo,
            source,
            delivery,
            seen,
            claim,
            sender: None,
            occurred_at: None,
            payload: None,
        }
    }

    /// Adds who did it.
    #[must_use]
    pub fn by(mut self, sender: impl Into<Arc<str>>) -> Self {
        self.sender = Some(sender.into());
        self
    }

    /// Adds when it happened.
    #[must_use]
    pub fn at(mut self, instant: Timestamp) -> Self {
        self.occurred_at = Some(instant);
        self
    }

    /// Adds the raw payload.
    #[must_use]
    pub fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = Some(payload);
        self
    }
}

/// How a source knows what it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// It was told of a change.
    Told,
    /// It read the present state after the ledger had reached this [`Event::sequence`]
    /// (see [`Store::position`](crate::store::Store::position)). A subject that changed in the
    /// ledger after that is newer than the reading, and the reading is dropped.
    ///
    /// [`Event::sequence`]: super::Event::sequence
    Read {
        /// The ledger's position before the reading began.
        as_of: i64,
    },
    /// It read the state of a repository that it sees for the first time: the state is recorded
    /// and makes no event.
    Baseline {
        /// The ledger's position before the reading began.
        as_of: i64,
    },
}

/// A raw payload: the bytes, and the headers that are allowed to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl Payload {
    /// Names of headers that are kept, in lower case. No other header is stored: signatures,
    /// tokens and cookies travel in them.
    pub const KEPT_HEADERS: &'static [&'static str] = &[
        "content-type",
        "user-agent",
        "x-github-event",
        "x-github-delivery",
        "x-github-hook-id",
        "x-github-hook-installation-target-id",
        "x-github-hook-installation-target-type",
        "x-gitlab-event",
        "x-gitlab-event-uuid",
        "x-gitlab-instance",
        "x-gitlab-webhook-uuid",
        "idempotency-key",
        "webhook-id",
        "webhook-timestamp",
        "ce-id",
        "ce-source",
        "ce-specversion",
        "ce-subject",
        "ce-time",
        "ce-type",
    ];

    /// A payload with the headers that are allowed to be kept.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        headers: impl IntoIterator<Item = (N, V)>,
        body: Bytes,
    ) -> Self {
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.as_ref().to_owned()))
            .filter(|(name, _)| Self::KEPT_HEADERS.contains(&name.as_str()))
            .collect();
        Self { headers, body }
    }

    /// The kept headers, by lower-case name.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// The bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Bytes whose sender has been checked: the only thing that a webhook decoder takes.
///
/// There is no way to make one of bytes that came in but to hand in a check of them, so that a decoder
/// cannot be reached around it.
///
/// ```
/// use workflows_core::{Error, event::Verified};
///
/// let body = bytes::Bytes::from_static(b"{}");
/// assert!(Verified::check(body, |_raw| Err(Error::denied("verify webhook", "no signature"))).is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Verified {
    body: Bytes,
}

impl Verified {
    /// Runs the check on the raw bytes and vouches for them when it passes.
    ///
    /// # Errors
    ///
    /// Whatever the check returns.
    pub fn check(
        body: Bytes,
        check: impl FnOnce(&[u8]) -> crate::Result<()>,
    ) -> crate::Result<Self> {
        check(&body)?;
        Ok(Self { body })
    }

    /// Vouches for bytes that nobody sent: the program itself fetched them from their host, over an
    /// API that proves who answers (TLS, and an address out of the configuration). A host's log of
    /// deliveries is read so. Never for bytes that came in.
    pub fn fetched(body: Bytes) -> Self {
        Self { body }
    }

    /// The bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signs_or_opens_something_is_not_kept_with_a_payload() {
        let sent = [
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", "guid-1"),
            ("X-Hub-Signature", "sha1=aa"),
            ("X-Hub-Signature-256", "sha256=bb"),
            ("X-Gitlab-Token", "s3cret"),
            ("webhook-id", "1"),
            ("webhook-signature", "v1,cc"),
            ("Authorization", "Bearer s3cret"),
            ("Cookie", "session=s3cret"),
            ("X-Forwarded-For", "10.0.0.1"),
        ];
        let kept = Payload::new(sent, Bytes::new());
        let names: Vec<&str> = kept.headers().keys().map(String::as_str).collect();
        assert_eq!(names, ["webhook-id", "x-github-delivery", "x-github-event"]);
    }
}
