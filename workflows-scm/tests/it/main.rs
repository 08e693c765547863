//! The drivers against real git.
#![cfg(feature = "git")]

mod git_file;
mod git_http;
mod support;
