//! Workflows for a project at GitLab, from a token and nothing else.
//!
//! `cargo run -p example-gitlab -- --repo group/project` looks at branches, tags and merge requests by
//! polling, with the token in the environment's `GITLAB_TOKEN` (without one, of public projects, and
//! showing nothing there). `--demo` starts a GitLab of its own on loopback and shows what a token sees
//! there: signed webhooks, commit statuses, an outsider's merge request that waits, and commands in notes.
//!
//! The engine is put together as in the example for GitHub: read its `composition.rs` first.

#[path = "../github/composition.rs"]
mod composition;
mod demonstration;
mod follow;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;

/// The name under which the engine knows GitLab.
pub(crate) const CONNECTION: &str = "gitlab";

/// Runs what a project at GitLab defines in `.tekton/`, as processes of this machine.
#[derive(Debug, Parser)]
struct Settings {
    /// The project, as group/project.
    #[arg(long, required_unless_present = "demo", conflicts_with = "demo")]
    repo: Option<String>,

    /// Shows it offline, with a GitLab that is played on loopback.
    #[arg(long)]
    demo: bool,

    /// The address of a self-managed GitLab, such as <https://gitlab.example.com>.
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
