//! The `Retry-After` header (RFC 9110, 10.2.3).

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// When a server wants to be asked again, told in seconds or as an HTTP date; at most `longest`
/// from now.
pub(crate) fn retry_after(
    headers: &HeaderMap,
    now: Timestamp,
    longest: SignedDuration,
) -> Option<Timestamp> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<i64>() {
        let wait = SignedDuration::from_secs(seconds.max(0)).min(longest);
        return now.checked_add(wait).ok();
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(at.min(now.checked_add(longest).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_both_forms() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now, SignedDuration::from_hours(24)).map(|at| at.to_string())
        };
        assert_eq!(read("30").as_deref(), Some("2026-01-02T03:04:35Z"));
        assert_eq!(read("Fri, 02 Jan 2026 04:00:00 GMT").as_deref(), Some("2026-01-02T04:00:00Z"));
        assert_eq!(read("soon"), None);
        assert_eq!(read("Fri, 02 Jan 2099 04:00:00 GMT").as_deref(), Some("2026-01-03T03:04:05Z"));
        assert_eq!(read("99999999999").as_deref(), Some("2026-01-03T03:04:05Z"));
    }
}
