//! Source-code hosts for Workflows: drivers, webhooks and polling.

#[cfg(feature = "git")]
pub mod git;
#[cfg(feature = "github")]
pub mod github;
pub mod poll;
#[cfg(feature = "webhook")]
pub mod webhook;
