//! Commits become runs, statuses, notifications and a record, with nothing but cargo and git.
//!
//! `cargo run --example quickstart` makes a small repository of its own and shows what comes of a
//! few pushes. `cargo run --example quickstart -- --repo <url-or-path>` watches yours until it is
//! interrupted, and goes on where it stopped.
//!
//! Read `composition.rs` first: it is all that a program needs to embed the engine.

mod composition;
mod demonstration;
mod follow;
mod repository;
mod settings;
mod show;

use std::{error::Error, process::ExitCode};

use clap::Parser;

use self::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let done: Result<(), Box<dyn Error>> = match settings.repo.clone() {
        None => demonstration::run(&settings).await,
        Some(repo) => follow::run(&settings, &repo).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
