//! A repository of the user's own, by polling alone, until interrupted.

use std::{error::Error, sync::Arc};

use jiff::SignedDuration;
use secrecy::SecretString;
use workflows::{
    EventSource,
    scm::{
        github::{GitHubCredentials, GitHubDriver},
        poll::{PullRequestPoller, RefPoller},
    },
};

use crate::{CONNECTION, Settings, composition::Running};

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
    let driver = Arc::new(driver.build()?);
    let running = Running::start(&settings.state, CONNECTION, driver, repo, sources).await?;
    running.until_interrupted().await
}
