//! The driver's own token: what it may do, and until when.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::Deserialize;
use workflows_core::{Error, Result};

use super::GitLabDriver;
use crate::rest::{Priority, Route};

/// What GitLab says of the driver's token
/// (<https://docs.gitlab.com/api/personal_access_tokens/#self-inform>), which is true of tokens of
/// projects and groups, too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GitLabToken {
    /// What it is called.
    pub name: String,
    /// What it may be used for: `api`, `read_api`, ...
    pub scopes: Vec<String>,
    /// From when on it is not accepted any more; `None` when it does not expire.
    pub expires_at: Option<Timestamp>,
}

impl GitLabToken {
    /// What is wrong with it, or will be within some time; `None` when nothing is.
    pub fn warning(&self, now: Timestamp, within: SignedDuration) -> Option<String> {
        if !self.scopes.iter().any(|scope| scope == "api" || scope == "read_api") {
            return Some(format!(
                "the token {:?} has neither the scope `api` nor `read_api`; make another one",
                self.name
            ));
        }
        let expires_at = self.expires_at?;
        let left = expires_at.duration_since(now);
        if left <= SignedDuration::ZERO {
            return Some(format!("the token {:?} has expired; make another one", self.name));
        }
        (left <= within).then(|| {
            format!(
                "the token {:?} expires on {}; make another one before",
                self.name,
                expires_at.strftime("%Y-%m-%d")
            )
        })
    }
}

#[derive(Debug, Deserialize)]
struct Told {
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    /// A day, at whose beginning in UTC it is over.
    #[serde(default)]
    expires_at: Option<Date>,
}

impl GitLabDriver {
    /// Asks GitLab about the driver's token.
    ///
    /// # Errors
    ///
    /// `Unsupported` when there is none, and what every call may fail with; `Denied` when it is not
    /// accepted.
    pub async fn token(&self) -> Result<GitLabToken> {
        const OPERATION: &str = "ask about the token";
        if self.api().authorizer().is_anonymous() {
            return Err(Error::unsupported(OPERATION, "the driver has no token"));
        }
        let route = Route::new(["personal_access_tokens", "self"]);
        let client = self.api().about((), Priority::Background);
        let told: Told = client.get(OPERATION, &route).await?;
        let begins = |day: Date| Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp());
        Ok(GitLabToken {
            name: told.name,
            scopes: told.scopes,
            expires_at: told.expires_at.and_then(begins),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.api().now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_before_it_comes() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let fortnight = SignedDuration::from_hours(14 * 24);
        let token = |scopes: &[&str], expires_at: Option<&str>| GitLabToken {
            name: "ci".to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            expires_at: expires_at.map(|at| at.parse().unwrap()),
        };
        let of = |scopes: &[&str], at| token(scopes, at).warning(now, fortnight);
        assert_eq!(of(&["api"], None), None);
        assert_eq!(of(&["api"], Some("2026-02-01T00:00:00Z")), None);
        let soon = of(&["api"], Some("2026-01-10T00:00:00Z")).unwrap();
        assert!(soon.contains("expires on 2026-01-10"), "{soon}");
        let over = of(&["api"], Some("2026-01-02T00:00:00Z")).unwrap();
        assert!(over.contains("has expired"), "{over}");
        assert!(of(&["read_repository"], None).unwrap().contains("scope"));
    }
}
