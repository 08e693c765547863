//! A Slack on loopback, for tests and demonstrations.
//!
//! A [`Workspace`] is a server with a state: channels, bots with scopes, incoming webhooks, messages
//! with threads, edits and metadata. Programs talk to it as they talk to Slack: to the Web API at
//! [`Workspace::api`] (`auth.test`, `chat.postMessage`, `chat.update`, `conversations.history`,
//! `conversations.replies`), and to the addresses of webhooks. It has the clock that it is given.
//!
//! ```
//! use std::sync::Arc;
//! use workflows_core::SystemClock;
//! use workflows_slack_standin::Workspace;
//!
//! let slack = Workspace::start(Arc::new(SystemClock));
//! let channel = slack.create_channel("ci");
//! let token = slack.create_bot(&["chat:write", "channels:history"]);
//! slack.invite(&token, &channel);
//! # let _ = slack.api();
//! ```
//!
//! **It refuses what Slack refuses**: tokens that it does not know, scopes that are missing, channels
//! that a bot is not in, blocks that break a rule ([`rules`], each with its source), more messages in a
//! channel than a short burst and one a second, more calls of a method than its tier has. What was
//! refused for its form is kept, and a workspace that is dropped with such a refusal panics;
//! [`Workspace::take_refused`] takes those away that a test means to cause.
//!
//! **It does not drop repetitions**, for Slack does not: what is posted twice is there twice.
//!
//! **Faults** are planned with [`Workspace::fail`]. A lost answer is one to something that was done.

mod api;
mod limits;
pub mod rules;
mod server;
mod world;

pub use self::{
    limits::Limits,
    server::{Call, Fault, Workspace},
    world::Shown,
};
