//! Source-code hosts for Workflows: drivers, webhooks and polling.

#[cfg(feature = "git")]
pub mod git;
pub mod poll;
#[cfg(feature = "webhook")]
pub mod webhook;
