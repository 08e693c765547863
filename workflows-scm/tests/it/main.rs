//! The drivers against real git, and polling.

#[cfg(any(feature = "github", feature = "gitlab"))]
mod absence;
#[cfg(feature = "git")]
mod git_conformance;
#[cfg(feature = "git")]
mod git_file;
#[cfg(feature = "git")]
mod git_http;
#[cfg(feature = "git")]
mod git_http_credentials;
#[cfg(feature = "git")]
mod git_http_failures;
#[cfg(feature = "git")]
mod git_ssh;
#[cfg(feature = "github")]
mod github;
#[cfg(feature = "github")]
mod github_absence;
#[cfg(feature = "github")]
mod github_calls;
#[cfg(feature = "github")]
mod github_checks;
#[cfg(feature = "github")]
mod github_comments;
#[cfg(feature = "github")]
mod github_commit_statuses;
#[cfg(feature = "github")]
mod github_engine;
#[cfg(feature = "github")]
mod github_events;
#[cfg(feature = "github")]
mod github_hooks;
#[cfg(all(feature = "github", feature = "webhook-axum"))]
mod github_ledger_down;
#[cfg(feature = "github")]
mod github_missed;
#[cfg(all(feature = "github", feature = "webhook-axum"))]
mod github_scenarios;
#[cfg(feature = "github")]
mod github_shown;
#[cfg(feature = "github")]
mod github_untold;
#[cfg(feature = "github")]
mod github_world;
#[cfg(all(feature = "gitlab", feature = "webhook-axum"))]
mod gitlab;
mod poll;
mod poll_engine;
#[cfg(feature = "git")]
mod poll_git;
mod poll_pull_requests;
mod poll_support;
#[cfg(any(feature = "github", feature = "gitlab"))]
mod process;
#[cfg(all(any(feature = "github", feature = "gitlab"), feature = "webhook-axum"))]
mod scenarios;
#[cfg(feature = "git")]
mod support;
#[cfg(feature = "webhook")]
mod webhook;
#[cfg(all(feature = "webhook-axum", feature = "github"))]
mod webhook_router;
