//! A repository of the user's own, by polling alone, until interrupted.

use std::{error::Error, sync::Arc, time::Duration};

use jiff::SignedDuration;
use secrecy::SecretString;
use workflows::{
    EventSource,
    scm::{
        github::{GitHubCredentials, GitHubDriver},
        poll::{PullRequestPoller, RefPoller},
    },
};

use crate::{Settings, composition::Running};

/// Looks until Ctrl-C.
pub(crate) async fn run(settings: &Settings, repo: &str) -> Result<(), Box<dyn Error>> {
    let token = std::env::var("GITHUB_TOKEN").ok().filter(|token| !token.is_empty());
    let credentials = match token {
        Some(token) => GitHubCredentials::token(SecretString::from(token)),
        None => {
            eprintln!(
                "GITHUB_TOKEN is not set: only public repositories can be read, 60 calls an hour, \
                 and no status is shown at GitHub."
            );
            GitHubCredentials::anonymous()
        }
    };
    let mut driver = GitHubDriver::builder().credentials(credentials).allow(repo);
    if let Some(base) = &settings.base {
        driver = driver.base(base);
    }
    let every = SignedDuration::from_secs(settings.every);
    let sources: Vec<Arc<dyn EventSource>> =
        vec![Arc::new(RefPoller::every(every)?), Arc::new(PullRequestPoller::every(every)?)];
    println!(
        "Workflows: looking at {repo} every {every:#}. It executes code from there on this machine."
    );
    println!("State: {}. Ctrl-C stops; started again, it goes on.", settings.state.display());
    let running = Running::start(&settings.state, driver.build()?, repo, sources).await?;
    let mut told = Vec::new();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            interrupted = &mut interrupted => { interrupted?; break }
            () = tokio::time::sleep(Duration::from_secs(2)) => {
                let problems = running.handle.health().await?.problems();
                for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
                    eprintln!("{problem}");
                }
                told = problems;
            }
        }
    }
    running.stop().await
}
