//! Source-code hosts for Workflows: drivers, webhooks and polling.

#[cfg(feature = "git")]
pub mod git;
#[cfg(feature = "github")]
pub mod github;
pub mod poll;
#[cfg(any(feature = "git", feature = "github"))]
mod printable;
#[cfg(any(feature = "git", feature = "github"))]
mod repeated;
#[cfg(any(feature = "git", feature = "github"))]
mod retry_after;
#[cfg(feature = "webhook")]
pub mod webhook;
