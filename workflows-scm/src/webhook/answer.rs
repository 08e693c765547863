//! What the sender of a delivery hears.

use serde_json::{Value, json};

use super::receiver::Taken;

/// The answer to a delivery: a status of HTTP, when to try again, and a short JSON text.
///
/// | status | when |
/// | --- | --- |
/// | 202 | it is in the ledger: as an event, as a duplicate, or as nothing of interest |
/// | 400 | it is verified and not readable |
/// | 401 | it is not signed with this route's secret |
/// | 413 | it is larger than allowed |
/// | 503 | it could not be stored; send it again |
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    status: u16,
    retry_after: Option<u32>,
    body: Value,
    taken: TakenAs,
}

/// What a delivery was taken as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakenAs {
    /// It made an event.
    Event,
    /// What it tells was known.
    Duplicate,
    /// Nothing can come of it; the reason is recorded.
    Nothing,
    /// Who sent it is unknown.
    Refused,
    /// It cannot be read.
    Invalid,
    /// It could not be stored.
    Unready,
}

impl TakenAs {
    /// As it stands in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Duplicate => "duplicate",
            Self::Nothing => "nothing",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Unready => "unready",
        }
    }
}

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of `Retry-After`, in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The body, a JSON object.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// What it was taken as.
    pub fn taken(&self) -> TakenAs {
        self.taken
    }

    fn new(status: u16, taken: TakenAs, reason: &str) -> Self {
        let body = json!({"taken": taken.as_str(), "reason": reason});
        Self { status, retry_after: None, body, taken }
    }

    pub(super) fn refused(reason: &str) -> Self {
        Self::new(401, TakenAs::Refused, reason)
    }

    pub(super) fn invalid(reason: &str) -> Self {
        Self::new(400, TakenAs::Invalid, reason)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(413, TakenAs::Invalid, &format!("it is larger than {limit} bytes"))
    }

    pub(super) fn unready(reason: &str) -> Self {
        const LATER: u32 = 10;
        Self { retry_after: Some(LATER), ..Self::new(503, TakenAs::Unready, reason) }
    }

    pub(super) fn taken_in(taken: Taken) -> Self {
        let what = taken.as_what();
        let mut body = json!({"taken": what.as_str(), "delivery": taken.what});
        if what == TakenAs::Nothing {
            body["reason"] = taken.nothing.into();
        } else if let Some(events) = events(&taken) {
            body["events"] = events;
        }
        Self { status: 202, retry_after: None, body, taken: what }
    }
}

fn events(taken: &Taken) -> Option<Value> {
    let keys: Vec<&str> =
        taken.admitted.iter().filter_map(|one| Some(one.event()?.key.as_str())).collect();
    (!keys.is_empty()).then(|| json!(keys))
}
