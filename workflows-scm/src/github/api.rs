//! What is GitHub's own about its API.

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::Value;
use url::Url;
use workflows_core::{Error, ErrorKind};

use super::authorization::{Authorizer, Principal, Scope};
use crate::{
    printable::printable,
    rest::{self, Answer, Grant, Host, LimitHeaders, MetricNames, Refused, Route},
};

/// GitHub.com, or an Enterprise Server.
#[derive(Debug)]
pub(crate) enum GitHub {}

pub(crate) type Api = rest::Api<GitHub>;
pub(crate) type Client = rest::Client<GitHub>;

impl Host for GitHub {
    type Principal = Principal;
    type Scope = Scope;
    type Authorizer = Authorizer;

    const NAME: &'static str = "GitHub";
    const JSON: &'static str = "application/vnd.github+json";
    const RAW: &'static str = "application/vnd.github.raw+json";
    const HEADERS: &'static [(&'static str, &'static str)] =
        &[("X-GitHub-Api-Version", "2022-11-28")];
    /// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>
    const LIMITS: LimitHeaders = LimitHeaders {
        limit: "x-ratelimit-limit",
        remaining: "x-ratelimit-remaining",
        reset: "x-ratelimit-reset",
        resource: Some("x-ratelimit-resource"),
    };
    const WINDOW: SignedDuration = SignedDuration::from_hours(1);
    /// <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests>
    const NOT_MODIFIED_IS_FREE: bool = true;
    const POINTS_OF_A_WRITE: u32 = 5;
    const METRICS: MetricNames = MetricNames {
        calls: "workflows_github_calls_total",
        held_back: "workflows_github_held_back_total",
        remaining: "workflows_github_remaining",
        blocked_until: "workflows_github_blocked_until_seconds",
        points: "workflows_github_points_in_the_last_minute",
        in_flight: "workflows_github_calls_in_flight",
        joined: "workflows_github_reads_joined_total",
    };

    fn resource(route: &Route) -> &'static str {
        if route.is_graphql() { "graphql" } else { "core" }
    }

    /// Not below the base of the REST API, which is `/api/v3` of an Enterprise Server.
    fn graphql(base: &Url) -> Url {
        let path = base.path().trim_end_matches('/');
        let above = path.strip_suffix("/v3").unwrap_or(path);
        let mut graphql = base.clone();
        graphql.set_path(&format!("{above}/graphql"));
        graphql
    }

    fn is_untold_limit(message: &str) -> bool {
        message.contains("secondary rate limit") || message.contains("abuse detection")
    }

    fn refused(grant: &Grant<Self>, answer: &Answer, said: &str) -> Option<Refused> {
        let what = match answer.status {
            StatusCode::UNAUTHORIZED => match grant.principal {
                Principal::Anonymous => "GitHub asks for a credential; configure an App or a token",
                Principal::App => {
                    "GitHub does not accept the App's key; check the App's id and whether the key \
                     was revoked"
                }
                _ => "GitHub does not accept the token; it may have expired or been revoked",
            },
            StatusCode::FORBIDDEN if said.to_ascii_lowercase().contains("suspended") => {
                "the App's installation is suspended; its owner can unsuspend it on the \
                 installation's settings page"
            }
            _ => return None,
        };
        Some((ErrorKind::Denied, what))
    }

    /// What a fine-grained token or an App would need for the call.
    fn add_to(error: Error, answer: &Answer) -> Error {
        match answer.header("x-accepted-github-permissions") {
            Some(needed) if error.kind() == ErrorKind::Denied => {
                error.with("needs", printable(needed))
            }
            _ => error,
        }
    }

    fn graphql_kind(error: &Value, answer: &Answer) -> ErrorKind {
        let message = error["message"].as_str().unwrap_or_default();
        match error["type"].as_str() {
            Some("NOT_FOUND") => ErrorKind::NotFound,
            Some("FORBIDDEN" | "INSUFFICIENT_SCOPES" | "UNAUTHORIZED") => ErrorKind::Denied,
            Some("RATE_LIMITED" | "RATE_LIMIT") => {
                let reset = answer.header(Self::LIMITS.reset).and_then(|text| text.parse().ok());
                let until = reset.and_then(|seconds| Timestamp::from_second(seconds).ok());
                ErrorKind::RateLimited { until }
            }
            Some("SERVICE_UNAVAILABLE") => ErrorKind::Transient,
            None if message.contains("went wrong") || message.contains("timeout") => {
                ErrorKind::Transient
            }
            _ => ErrorKind::Invalid,
        }
    }
}
