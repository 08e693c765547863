//! A GitHub on loopback, for tests and demonstrations.
//!
//! A [`Hub`] is a server with a state: accounts, repositories with git's own objects, pull requests,
//! comments, checks, statuses, hooks, Apps, limits. Programs talk to it as they talk to a GitHub
//! Enterprise Server, at [`Hub::api`]; tests act in it as people, through [`RepoHandle`], and what
//! they do is told to hooks over HTTP. It has the clock that it is given, so that a test can move
//! hours.
//!
//! ```
//! use std::sync::Arc;
//! use workflows_core::SystemClock;
//! use workflows_github_standin::{Hub, Role};
//!
//! let hub = Hub::start(Arc::new(SystemClock));
//! let api = hub.create_repo("acme/api");
//! api.push("main", &[("README.md", "# API\n")]);
//! api.push("topic", &[("src/lib.rs", "// soon\n")]);
//! let number = api.as_user("alice").open_pull_request("Do it", "topic", "main");
//! api.set_role("bob", Some(Role::Write));
//! api.as_user("bob").comment(number, "/test");
//!
//! let app = hub.create_app("ci");
//! app.install("acme");
//! let (base, id, key) = (hub.api(), app.id(), app.private_key());
//! # let _ = (base, id, key);
//! ```
//!
//! **It refuses what GitHub refuses.** Each request is checked against GitHub's published description
//! of its API, where that file is found ([`@octokit/openapi`](https://www.npmjs.com/package/@octokit/openapi),
//! `generated/api.github.com.json`; the environment's `WORKFLOWS_GITHUB_OPENAPI` says where it is,
//! otherwise it is looked for in `target/npm/node_modules`). A request that does not conform is
//! answered with 422 and noted as a [`Problem`]; so are routes that are not there, and answers and
//! events of the stand-in's own that do not conform. A hub that is dropped with problems panics;
//! [`Hub::take_problems`] takes those away that a test means to cause.
//!
//! **Faults** are planned with [`Hub::fail`] and [`Hub::fail_until`] for the calls that fit a pattern.
//! **Calls** are recorded ([`Hub::calls`], [`Hub::count`]), so that a test can assert how many there
//! were.
//!
//! **Deliveries** are sent in order by the hub's own thread, with GitHub's ten seconds for an answer and no
//! repetition. [`Hub::settle`] waits until all were sent. They stay in the log for three days by the
//! hub's clock.

#![recursion_limit = "256"]

mod access;
mod answer;
mod api;
mod changes;
mod deliveries;
mod git_http;
mod hub;
mod limits;
mod openapi;
mod script;
mod server;
mod views;
mod world;

use jiff::Timestamp;
pub(crate) use workflows_standin_kit::{faults, git};

pub use workflows_standin_kit::faults::Fault;

pub use self::{
    access::Level,
    hub::{AppHandle, Hub, SentDelivery},
    limits::Limits,
    script::{RepoHandle, Role, ShownCheck, ShownComment, ShownStatus},
};

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// `GET` and so on.
    pub method: String,
    /// As GitHub writes it: `/repos/{owner}/{repo}/pulls`. Empty for what there is no route for.
    pub route: String,
    /// Below the API's base, decoded.
    pub path: String,
    /// 0 when there was no answer.
    pub status: u16,
    /// `app:1`, `installation:2`, `user:alice`, `anonymous`, `unknown`.
    pub caller: String,
    /// When, by the hub's clock.
    pub at: Timestamp,
}

/// Something that should not have been.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of thing it is about.
    pub kind: ProblemKind,
    /// The route or the event.
    pub place: String,
    /// What is wrong.
    pub text: String,
}

/// What a [`Problem`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A request does not conform to GitHub's description.
    Request,
    /// There is no such route.
    Route,
    /// An answer of the stand-in does not conform.
    Answer,
    /// An event of the stand-in does not conform.
    Event,
}
