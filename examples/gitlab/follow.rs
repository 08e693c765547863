//! A repository of the user's own, by polling alone, until interrupted.

use std::{error::Error, sync::Arc};

use jiff::SignedDuration;
use secrecy::SecretString;
use workflows::{
    EventSource,
    scm::{
        gitlab::{GitLabCredentials, GitLabDriver, GitLabWatch},
        poll::{PullRequestPoller, RefPoller},
    },
};

use crate::{CONNECTION, Settings, composition::Running};

/// Looks until Ctrl-C.
pub(crate) async fn run(settings: &Settings, repo: &str) -> Result<(), Box<dyn Error>> {
    let token = std::env::var("GITLAB_TOKEN").ok().filter(|token| !token.is_empty());
    let has_token = token.is_some();
    let credentials = match token {
        Some(token) => GitLabCredentials::token(SecretString::from(token)),
        None => {
            eprintln!(
                "GITLAB_TOKEN is not set: only public projects can be read, and no status is shown \
                 at GitLab."
            );
            GitLabCredentials::anonymous()
        }
    };
    let mut driver = GitLabDriver::builder().credentials(credentials).allow(repo);
    if let Some(base) = &settings.base {
        driver = driver.base(base);
    }
    let driver = driver.build()?;
    let every = SignedDuration::from_secs(settings.every);
    let mut sources: Vec<Arc<dyn EventSource>> =
        vec![Arc::new(RefPoller::every(every)?), Arc::new(PullRequestPoller::every(every)?)];
    if has_token {
        // Tells two weeks before the token expires.
        sources.push(Arc::new(GitLabWatch::of(CONNECTION, driver.clone())));
    }
    println!(
        "Workflows: looking at {repo} every {every:#}. It executes code from there on this machine."
    );
    println!("State: {}. Ctrl-C stops; started again, it goes on.", settings.state.display());
    let driver = Arc::new(driver);
    let running = Running::start(&settings.state, CONNECTION, driver, repo, sources).await?;
    running.until_interrupted().await
}
