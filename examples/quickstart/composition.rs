//! An embedded engine, put together: SQLite, any git URL by polling, runs as processes of this
//! machine, lines on the terminal.

use std::{error::Error, num::NonZeroUsize, path::Path, sync::Arc};

use futures::TryStreamExt;
use jiff::{SignedDuration, tz::TimeZone};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows::{
    ScmDriver, SystemClock, Tenant, Transition,
    core::{
        engine::{ConnectionOptions, Engine, EngineHandle, NotifyPolicy},
        local::LocalSink,
        store::{SqliteOptions, SqliteStore},
        workflow::{LoadedWorkflow, Notification},
    },
    notify::{Colors, TerminalNotifier},
    scm::{
        git::{GitCredentials, GitDriver},
        poll::RefPoller,
    },
};

use crate::show;

/// The name under which the engine knows git.
pub(crate) const CONNECTION: &str = "git";

/// What an engine is put together from.
pub(crate) struct Parts<'a> {
    /// Where the ledger and the runs are kept.
    pub(crate) state: &'a Path,
    /// The repository's URL or path.
    pub(crate) repo: &'a str,
    /// Workflows to use instead of those that the repository defines.
    pub(crate) workflows: Vec<LoadedWorkflow>,
    /// The branches to look at; all when `None`.
    pub(crate) branches: Option<&'a str>,
    /// How often the repository is asked.
    pub(crate) poll_every: SignedDuration,
    /// How many steps may execute together.
    pub(crate) steps: usize,
}

/// An engine at work.
pub(crate) struct Running {
    /// What one asks it and tells it with.
    pub(crate) handle: EngineHandle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Puts an engine together and lets it work.
    pub(crate) async fn start(parts: Parts<'_>) -> Result<Self, Box<dyn Error>> {
        std::fs::create_dir_all(parts.state)?;
        let store = SqliteStore::open(
            parts.state.join("ledger.db"),
            SqliteOptions::default(),
            Arc::new(SystemClock),
        )
        .await?;
        let git = GitDriver::builder()
            .cache_directory(parts.state.join("git"))
            .credentials(GitCredentials::ssh_of_the_user())
            .build()?;
        look_at(&git, parts.repo).await?;
        let sink = LocalSink::builder(parts.state.join("runs"))
            .max_steps(NonZeroUsize::new(parts.steps).ok_or("--steps must be 1 or more")?)
            .build()
            .await?;
        let colors = if show::is_terminal() { Colors::Ansi } else { Colors::None };
        let terminal =
            TerminalNotifier::new(std::io::stdout(), colors).in_time_zone(TimeZone::system());
        let definitions = if parts.workflows.is_empty() {
            ConnectionOptions::default()
        } else {
            ConnectionOptions::registered_only()
        };
        let mut poller = RefPoller::every(parts.poll_every)?;
        if let Some(branches) = parts.branches {
            poller = poller.only_branches(branches)?;
        }
        let mut builder = Engine::builder()
            .store(Arc::new(store))
            .connection_of(Tenant::default(), CONNECTION, Arc::new(git), definitions)
            .source(Arc::new(poller))
            .sink("local", Arc::new(sink))
            .notifier("terminal", Arc::new(terminal))
            // Whoever watches sees all that becomes of a run, but for workflows that say what to tell.
            .notify(
                NotifyPolicy::new().by_default([Notification::new("terminal", Transition::ALL)]),
            )
            .repository(CONNECTION, parts.repo);
        for workflow in parts.workflows {
            builder = builder.workflow(workflow);
        }
        let engine = builder.build()?;
        let handle = engine.handle();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { engine.run(shutdown).await }
        });
        Ok(Self { handle, shutdown, task })
    }

    /// Lets it finish what is under way, and stops it.
    pub(crate) async fn stop(self) -> Result<(), Box<dyn Error>> {
        self.shutdown.cancel();
        Ok(self.task.await?)
    }
}

/// Lists the repository's branches once, so that a wrong path or a refused credential is told at once.
/// What may pass is left to the poller.
async fn look_at(git: &GitDriver, repo: &str) -> workflows::Result<()> {
    let looked = async {
        let repository = git.connect(&CONNECTION.into(), repo).await?;
        repository.refs(&["refs/heads/".into()]).try_next().await
    };
    match looked.await {
        Err(error) if !error.kind().is_retryable() => Err(error),
        _ => Ok(()),
    }
}
