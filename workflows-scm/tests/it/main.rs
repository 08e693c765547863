//! The drivers against real git, and polling.

#[cfg(feature = "git")]
mod git_conformance;
#[cfg(feature = "git")]
mod git_file;
#[cfg(feature = "git")]
mod git_http;
#[cfg(feature = "git")]
mod git_ssh;
mod poll;
#[cfg(feature = "git")]
mod poll_git;
mod poll_support;
#[cfg(feature = "git")]
mod support;
