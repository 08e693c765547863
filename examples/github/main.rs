//! Workflows for a repository at GitHub, from a token and nothing else.
//!
//! `cargo run -p example-github -- --repo owner/name` looks at branches, tags and pull requests by polling, with the
//! token in the environment's `GITHUB_TOKEN` (without one, of public repositories, and showing nothing
//! there). `--demo` starts a GitHub of its own on loopback and shows what an App sees there: webhooks,
//! check runs, an outsider's pull request that waits, and commands in comments.
//!
//! Read `composition.rs` first.

mod composition;
mod demonstration;
mod follow;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;

/// The name under which the engine knows GitHub.
pub(crate) const CONNECTION: &str = "github";

/// Runs what a repository at GitHub defines in `.tekton/`, as processes of this machine.
#[derive(Debug, Parser)]
struct Settings {
    /// The repository, as owner/name.
    #[arg(long, required_unless_present = "demo", conflicts_with = "demo")]
    repo: Option<String>,

    /// Shows it offline, with a GitHub that is played on loopback.
    #[arg(long)]
    demo: bool,

    /// The API of a GitHub Enterprise Server, such as <https://github.example.com/api/v3>.
    #[arg(long, conflicts_with = "demo")]
    base: Option<String>,

    /// How often the repository is asked, in seconds.
    #[arg(long, default_value_t = 15, conflicts_with = "demo")]
    every: i64,

    /// Where the ledger and the runs are kept.
    #[arg(long, default_value = "workflows-state", conflicts_with = "demo")]
    state: PathBuf,
}

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
    let done: Result<(), Box<dyn Error>> = match &settings.repo {
        Some(repo) => follow::run(&settings, repo).await,
        None => demonstration::run().await,
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
