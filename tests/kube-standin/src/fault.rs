//! Failures on demand.

use std::time::Duration;

use crate::Refusal;

/// How a request fails.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is refused, and nothing happens.
    Refused(Refusal),
    /// It is done, and the answer is lost: the connection breaks.
    AnswerLost,
    /// It is done after so long.
    Slow(Duration),
}

impl Fault {
    /// A server that is overloaded, or has no leader.
    pub fn unavailable() -> Self {
        let message = "the server is currently unable to handle the request";
        Self::Refused(Refusal::new(503, "ServiceUnavailable", message, serde_json::json!({})))
    }

    /// A server that asks to come back after so many seconds.
    pub fn too_many_requests(seconds: u32) -> Self {
        let message =
            "the server has received too many requests and has asked us to try again later";
        let details = serde_json::json!({"retryAfterSeconds": seconds});
        Self::Refused(Refusal::new(429, "TooManyRequests", message, details))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<(String, usize, Fault)>);

impl Faults {
    pub(crate) fn add(&mut self, requests: &str, times: usize, fault: Fault) {
        self.0.push((requests.to_owned(), times, fault));
    }

    /// The fault of a request, which is used up by it.
    pub(crate) fn take(&mut self, method: &str, path: &str) -> Option<Fault> {
        let request = format!("{method} {path}");
        let (_, left, fault) = self
            .0
            .iter_mut()
            .find(|(text, left, _)| *left > 0 && request.contains(text.as_str()))?;
        *left -= 1;
        Some(fault.clone())
    }
}
