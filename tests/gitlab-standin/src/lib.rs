//! A GitLab on loopback, for tests and demonstrations.
//!
//! An [`Instance`] is a server with a state: people, groups, projects with git's own objects, merge
//! requests, notes, pipelines and statuses, hooks, tokens, limits. Programs talk to it as they talk to a
//! self-managed GitLab, at [`Instance::root`]; tests act in it as people, through [`ProjectHandle`], and
//! what they do is told to hooks over HTTP. It has the clock that it is given, so that a test can move
//! hours.
//!
//! ```
//! use std::sync::Arc;
//! use workflows_core::SystemClock;
//! use workflows_gitlab_standin::{Access, Instance};
//!
//! let gitlab = Instance::start(Arc::new(SystemClock));
//! let api = gitlab.create_project("acme/platform/api");
//! api.set_access("alice", Some(Access::Developer));
//! api.push("main", &[("README.md", "# API\n")]);
//! api.push("topic", &[("src/lib.rs", "// soon\n")]);
//! let number = api.as_user("alice").open("Do it", "topic", "main");
//! api.as_user("alice").note(number, "/test");
//! let token = gitlab.token_of("alice");
//! # let _ = token;
//! ```
//!
//! Its shapes are those of GitLab's published pages, which are named at each route's file. **It refuses
//! what GitLab refuses**: a status that is set to the state that it has or from which the wanted one is
//! not reached (400), what a role or a scope does not allow (403, and 404 for what may not be seen), calls
//! beyond the limit of a minute (429), pages beyond the limit of their kind (405). It tells nothing of a
//! push of more than three refs, and disables hooks that fail.
//!
//! **Faults** are planned with [`Instance::fail`] for the calls that fit a pattern, **calls** are recorded
//! ([`Instance::calls`]), and a request to a route that is not there is noted: an instance that is dropped
//! with such notes panics, unless [`Instance::take_unknown`] took them away.

mod access;
mod answer;
mod api;
mod changes;
mod deliveries;
mod instance;
mod limits;
mod script;
mod server;
mod views;
mod world;

use jiff::Timestamp;
pub use workflows_standin_kit::faults::Fault;

pub use self::{
    access::Access,
    instance::{Instance, SentDelivery},
    limits::Limits,
    script::{ProjectHandle, ShownHook, ShownNote, ShownStatus},
};

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// `GET` and so on.
    pub method: String,
    /// As GitLab's pages write it, but for braces: `/projects/{id}/hooks`. Empty for what there is no
    /// route for.
    pub route: String,
    /// Below the API's base, decoded.
    pub path: String,
    /// 0 when there was no answer.
    pub status: u16,
    /// Who called: a name, or `anonymous`.
    pub caller: String,
    /// When, by the instance's clock.
    pub at: Timestamp,
}
