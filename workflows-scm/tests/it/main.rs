//! The drivers against real git, and polling.

#[cfg(feature = "git")]
mod git_conformance;
#[cfg(feature = "git")]
mod git_file;
#[cfg(feature = "git")]
mod git_http;
#[cfg(feature = "git")]
mod git_ssh;
#[cfg(feature = "github")]
mod github;
mod poll;
mod poll_engine;
#[cfg(feature = "git")]
mod poll_git;
mod poll_support;
#[cfg(feature = "git")]
mod support;
