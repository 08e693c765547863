//! What is GitLab's own about its API.

use std::fmt;

use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::Value;
use url::Url;
use workflows_core::ErrorKind;

use super::authorization::Authorizer;
use crate::rest::{self, Answer, Grant, Host, LimitHeaders, MetricNames, Refused};

/// GitLab.com, or a self-managed one.
#[derive(Debug)]
pub(crate) enum GitLab {}

pub(crate) type Api = rest::Api<GitLab>;
pub(crate) type Client = rest::Client<GitLab>;

/// Whose limits a call counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Principal {
    /// The user of the token; of a token of a project or a group, its bot.
    Token,
    /// The address that this process calls from.
    Anonymous,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Anonymous => "anonymous",
        })
    }
}

impl Host for GitLab {
    type Principal = Principal;
    /// One token is for everything.
    type Scope = ();
    type Authorizer = Authorizer;

    const NAME: &'static str = "GitLab";
    const JSON: &'static str = "application/json";
    const RAW: &'static str = "*/*";
    const HEADERS: &'static [(&'static str, &'static str)] = &[];
    /// <https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>
    const LIMITS: LimitHeaders = LimitHeaders {
        limit: "ratelimit-limit",
        remaining: "ratelimit-remaining",
        reset: "ratelimit-reset",
        resource: None,
    };
    const WINDOW: SignedDuration = SignedDuration::from_mins(1);
    const NOT_MODIFIED_IS_FREE: bool = false;
    const POINTS_OF_A_WRITE: u32 = 1;
    const METRICS: MetricNames = MetricNames {
        calls: "workflows_gitlab_calls_total",
        held_back: "workflows_gitlab_held_back_total",
        remaining: "workflows_gitlab_remaining",
        blocked_until: "workflows_gitlab_blocked_until_seconds",
        points: "workflows_gitlab_points_in_the_last_minute",
        in_flight: "workflows_gitlab_calls_in_flight",
        joined: "workflows_gitlab_reads_joined_total",
    };

    /// `/api/graphql`, beside `/api/v4`.
    fn graphql(base: &Url) -> Url {
        let path = base.path().trim_end_matches('/');
        let above = path.strip_suffix("/v4").unwrap_or(path);
        let mut graphql = base.clone();
        graphql.set_path(&format!("{above}/graphql"));
        graphql
    }

    fn refused(grant: &Grant<Self>, answer: &Answer, said: &str) -> Option<Refused> {
        let said = said.to_ascii_lowercase();
        let what = match (answer.status, grant.principal) {
            (StatusCode::UNAUTHORIZED, Principal::Anonymous) => {
                "GitLab asks for a credential; configure a token"
            }
            (StatusCode::UNAUTHORIZED, Principal::Token) if said.contains("expired") => {
                "the token has expired; make another one"
            }
            (StatusCode::UNAUTHORIZED, Principal::Token) => {
                "GitLab does not accept the token; it may have expired or been revoked"
            }
            (StatusCode::FORBIDDEN, _) if said.contains("insufficient_scope") => {
                "the token lacks a scope; give it `api`, or `read_api` where nothing is to be shown"
            }
            (StatusCode::FORBIDDEN, _) => {
                "GitLab refuses; the role of the token's user in the project may be too low"
            }
            _ => return None,
        };
        Some((ErrorKind::Denied, what))
    }

    fn graphql_kind(error: &Value, _: &Answer) -> ErrorKind {
        let message = error["message"].as_str().unwrap_or_default().to_ascii_lowercase();
        if message.contains("timeout") || message.contains("internal server error") {
            return ErrorKind::Transient;
        }
        ErrorKind::Invalid
    }
}
