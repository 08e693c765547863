//! What a tenant may put into the ledger.

use std::io;

use crate::{Error, Result, event::Observation};

/// Limits of what a tenant may put into the ledger, so that none starves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Bytes of one raw payload. An observation with a longer one is refused as
    /// [`Invalid`](crate::ErrorKind::Invalid). By default 25 MiB, the most that GitHub sends.
    pub max_payload_bytes: usize,
    /// Bytes of all raw payloads that are kept of one tenant. Beyond it the tenant's oldest
    /// payloads go; their events stay. By default 1 GiB.
    pub max_stored_payload_bytes: u64,
    /// Bytes of one claim as JSON: titles, comments, a caller's parameters. An observation with a
    /// longer one is refused as [`Invalid`](crate::ErrorKind::Invalid). By default 1 MiB.
    pub max_claim_bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            max_payload_bytes: 25 << 20,
            max_stored_payload_bytes: 1 << 30,
            max_claim_bytes: 1 << 20,
        }
    }
}

impl StoreLimits {
    /// Limits one raw payload.
    #[must_use]
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = bytes;
        self
    }

    /// Limits the raw payloads that are kept of one tenant.
    #[must_use]
    pub fn max_stored_payload_bytes(mut self, bytes: u64) -> Self {
        self.max_stored_payload_bytes = bytes;
        self
    }

    /// Limits one claim.
    #[must_use]
    pub fn max_claim_bytes(mut self, bytes: usize) -> Self {
        self.max_claim_bytes = bytes;
        self
    }

    pub(super) fn check(&self, observation: &Observation) -> Result<()> {
        let refused = |name: &'static str, bytes: usize, limit: usize| {
            Err(Error::invalid("admit observation", format!("it is over the limit `{name}`"))
                .with("tenant", &observation.tenant)
                .with("repository", &observation.repo)
                .with("delivery", &observation.delivery)
                .with("bytes", bytes)
                .with("limit", limit))
        };
        if let Some(payload) = &observation.payload {
            let bytes = payload_bytes(payload);
            if bytes > self.max_payload_bytes {
                return refused("max_payload_bytes", bytes, self.max_payload_bytes);
            }
        }
        let mut counted = Counted(0);
        serde_json::to_writer(&mut counted, &observation.claim).map_err(|error| {
            Error::invalid("admit observation", "its claim has no JSON form").caused_by(error)
        })?;
        if counted.0 > self.max_claim_bytes {
            return refused("max_claim_bytes", counted.0, self.max_claim_bytes);
        }
        Ok(())
    }
}

/// What a payload counts for: its body and its headers.
pub(super) fn payload_bytes(payload: &crate::event::Payload) -> usize {
    let headers: usize =
        payload.headers().iter().map(|(name, value)| name.len() + value.len()).sum();
    payload.body().len() + headers
}

struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
