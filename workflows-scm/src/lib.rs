//! Source-code hosts for Workflows: drivers, webhooks and polling.

#[cfg(feature = "git")]
pub mod git;
#[cfg(feature = "github")]
pub mod github;
#[cfg(feature = "gitlab")]
pub mod gitlab;
pub mod poll;
#[cfg(any(feature = "git", feature = "github", feature = "gitlab"))]
mod printable;
#[cfg(any(feature = "git", feature = "github", feature = "gitlab"))]
mod repeated;
#[cfg(any(feature = "github", feature = "gitlab"))]
mod rest;
#[cfg(any(feature = "git", feature = "github", feature = "gitlab"))]
mod retry_after;
#[cfg(feature = "webhook")]
pub mod webhook;

#[cfg(any(feature = "github", feature = "gitlab"))]
pub use rest::{CallBudget, HostSecret, LimitBudget};
