//! Telling before a token expires, and when GitLab has disabled a webhook: [`GitLabWatch`].

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    ConnectionName, Error, EventSource, Result, SourceName, source::SourceContext,
};

use super::{GitLabDriver, hooks::Hook};
use crate::poll::later;

/// Looks now and then at what would end quietly: the driver's token, which expires, and webhooks, which
/// GitLab disables after four failures in a row for a while, and after forty for good.
///
/// It brings no events. What is wrong, or will be soon, shows as a failure of this source in the
/// engine's health: with the name of the connection what is about the token, with that of the project or
/// the group what is about a webhook.
#[derive(Debug, Clone)]
pub struct GitLabWatch {
    name: SourceName,
    connection: ConnectionName,
    driver: GitLabDriver,
    interval: SignedDuration,
    before: SignedDuration,
    hooks: Vec<Watched>,
}

/// Webhooks of an address.
#[derive(Debug, Clone)]
struct Watched {
    of: Of,
    url: String,
}

#[derive(Debug, Clone)]
enum Of {
    Project(Arc<str>),
    Group(Arc<str>),
}

impl Of {
    fn name(&self) -> &str {
        match self {
            Self::Project(name) | Self::Group(name) => name,
        }
    }
}

impl GitLabWatch {
    /// Watches the token of a connection's driver, every hour. The source is called like the
    /// connection, with `-watch`.
    pub fn of(connection: impl Into<ConnectionName>, driver: GitLabDriver) -> Self {
        let connection = connection.into();
        Self {
            name: format!("{connection}-watch").into(),
            connection,
            driver,
            interval: SignedDuration::from_hours(1),
            before: SignedDuration::from_hours(14 * 24),
            hooks: Vec::new(),
        }
    }

    /// Watches the webhook of a project with this address, too.
    #[must_use]
    pub fn project_hook(mut self, project: impl Into<Arc<str>>, url: impl Into<String>) -> Self {
        self.hooks.push(Watched { of: Of::Project(project.into()), url: url.into() });
        self
    }

    /// Watches the webhook of a group with this address, too.
    #[must_use]
    pub fn group_hook(mut self, group: impl Into<Arc<str>>, url: impl Into<String>) -> Self {
        self.hooks.push(Watched { of: Of::Group(group.into()), url: url.into() });
        self
    }

    /// Sets how often to look. Default: an hour.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is shorter than a second.
    pub fn every(mut self, interval: SignedDuration) -> Result<Self> {
        if interval < SignedDuration::from_secs(1) {
            return Err(Error::invalid("set up a watch", "the interval is shorter than a second")
                .with("interval", format!("{interval:#}")));
        }
        self.interval = interval;
        Ok(self)
    }

    /// Sets how long before a token expires it is told. Default: two weeks.
    #[must_use]
    pub fn warning_before(mut self, before: SignedDuration) -> Self {
        self.before = before;
        self
    }

    async fn token(&self) -> Result<()> {
        const OPERATION: &str = "watch the token";
        let token = self.driver.token().await?;
        match token.warning(self.driver.now(), self.before) {
            Some(warning) => Err(Error::denied(OPERATION, warning)),
            None => Ok(()),
        }
    }

    async fn hook(&self, watched: &Watched) -> Result<()> {
        const OPERATION: &str = "watch the webhook";
        let hooks: Vec<Hook> = match &watched.of {
            Of::Group(path) => self.driver.group_hooks(path)?.all().await?,
            Of::Project(path) => self.driver.project_hooks(path)?.all().await?,
        };
        let at = |error: Error| error.with("of", watched.of.name());
        let mut there = hooks.iter().filter(|hook| hook.url == watched.url).peekable();
        if there.peek().is_none() {
            return Err(at(Error::not_found(OPERATION, "there is no webhook; register it")));
        }
        match there.find_map(|hook| hook.disabled(self.driver.now())) {
            Some(why) => Err(at(Error::denied(OPERATION, why))),
            None => Ok(()),
        }
    }

    async fn look(&self, context: &SourceContext) {
        let next = later(context.clock.now(), self.interval);
        let tell = |what: &str, looked: Result<()>| match looked {
            Ok(()) => context.succeeded(what),
            Err(error) => context.failed(what, &error, next),
        };
        tell(self.connection.as_str(), self.token().await);
        for watched in &self.hooks {
            tell(watched.of.name(), self.hook(watched).await);
        }
    }
}

#[async_trait]
impl EventSource for GitLabWatch {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.look(&context) => {}
            }
            let next = later(context.clock.now(), self.interval);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = context.clock.sleep_until(next) => {}
            }
        }
    }
}
