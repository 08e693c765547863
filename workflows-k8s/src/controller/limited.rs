//! A driver of which only some repositories may be reached.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{
    Capabilities, ConnectionName, Error, RepoConnection, Result, ScmDriver, matching::Pattern,
};

/// Reaches through another driver the repositories that patterns allow.
#[derive(Debug)]
pub(super) struct Limited {
    driver: Arc<dyn ScmDriver>,
    allowed: Vec<Pattern>,
}

impl Limited {
    /// The driver itself when there are no patterns.
    ///
    /// # Errors
    ///
    /// `Invalid` for what is no pattern.
    pub(super) fn to(
        driver: Arc<dyn ScmDriver>,
        patterns: &[String],
    ) -> Result<Arc<dyn ScmDriver>> {
        if patterns.is_empty() {
            return Ok(driver);
        }
        Ok(Arc::new(Self { driver, allowed: compile(patterns)? }))
    }
}

/// Patterns of repositories.
pub(super) fn compile(patterns: &[String]) -> Result<Vec<Pattern>> {
    let one = |text: &String| {
        Pattern::of_repository(text).map_err(|problem| {
            Error::invalid("read patterns of repositories", problem)
                .with("pattern", format!("{text:?}"))
        })
    };
    patterns.iter().map(one).collect()
}

#[async_trait]
impl ScmDriver for Limited {
    fn host(&self) -> &str {
        self.driver.host()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        if !self.allowed.iter().any(|pattern| pattern.matches(repo)) {
            return Err(Error::denied(
                "connect to the repository",
                "the connection does not allow this repository",
            )
            .with("connection", connection)
            .with("repository", format!("{repo:?}")));
        }
        self.driver.connect(connection, repo).await
    }
}
