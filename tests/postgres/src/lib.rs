//! A Postgres server that lives as long as a test binary, or as long as one test.
//!
//! [`url`] is the address of one server for a whole binary: what `WORKFLOWS_TEST_POSTGRES` says, or a
//! server that is started when Postgres' programs are installed. Where there is neither, it says so
//! aloud and gives `None`; with `WORKFLOWS_TESTS_MAY_SKIP=0` it panics. [`Server`] is one that a test
//! stops, crashes and starts again.
//!
//! A server ends with the process that started it, also when that is killed: a shell watches over it,
//! ends it when its standard input closes, and removes its files.
#![cfg(unix)]

mod programs;
mod server;

use std::{io::Write as _, sync::OnceLock};

pub use self::server::{Durability, Server};

/// The address of the server of this binary, with a user that may do everything. `None` when the test
/// has to be skipped.
///
/// # Panics
///
/// When the server does not start, and when there is none and no test may be skipped.
pub fn url(test: &str) -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    if let Ok(url) = std::env::var("WORKFLOWS_TEST_POSTGRES")
        && !url.is_empty()
    {
        return Some(url);
    }
    let server = SERVER.get_or_init(|| {
        programs::newest().map(|programs| {
            Server::start_with(&programs, Durability::None)
                .unwrap_or_else(|error| panic!("{error}"))
        })
    });
    match server {
        Some(server) => Some(server.url()),
        None => {
            skip(test);
            None
        }
    }
}

/// A server of its own for one test; `None` when the test has to be skipped.
///
/// # Panics
///
/// As [`url`].
pub fn server(test: &str, durability: Durability) -> Option<Server> {
    let Some(programs) = programs::newest() else {
        skip(test);
        return None;
    };
    Some(Server::start_with(&programs, durability).unwrap_or_else(|error| panic!("{error}")))
}

fn skip(test: &str) {
    let why = "Postgres' programs (initdb, pg_basebackup, postgres) are not installed, and WORKFLOWS_TEST_POSTGRES \
               names no server";
    assert!(
        std::env::var("WORKFLOWS_TESTS_MAY_SKIP").as_deref() != Ok("0"),
        "{test} cannot be skipped: {why}"
    );
    // Around what captures the output of tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
