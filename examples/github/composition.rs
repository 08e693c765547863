//! An engine for one host: a ledger in SQLite, runs as processes of this machine, lines on the
//! terminal.

use std::{error::Error, io::IsTerminal, path::Path, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows::{
    EventSource, ScmDriver, SystemClock, Tenant,
    core::{
        engine::{Engine, EngineHandle},
        local::LocalSink,
        store::{EventQuery, SqliteOptions, SqliteStore},
    },
    notify::{Colors, TerminalNotifier},
};

/// An engine at work.
pub(crate) struct Running {
    /// What one asks it and tells it with.
    pub(crate) handle: EngineHandle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Puts an engine together and lets it work; `connection` is the name under which it knows the host.
    pub(crate) async fn start(
        state: &Path,
        connection: &str,
        driver: Arc<dyn ScmDriver>,
        repo: &str,
        sources: Vec<Arc<dyn EventSource>>,
    ) -> Result<Self, Box<dyn Error>> {
        std::fs::create_dir_all(state)?;
        let ledger = state.join("ledger.db");
        let store =
            SqliteStore::open(ledger, SqliteOptions::default(), Arc::new(SystemClock)).await?;
        let sink = LocalSink::builder(state.join("runs")).build().await?;
        let colors = if std::io::stdout().is_terminal() { Colors::Ansi } else { Colors::None };
        let terminal =
            TerminalNotifier::new(std::io::stdout(), colors).in_time_zone(TimeZone::system());
        let mut builder = Engine::builder()
            .store(Arc::new(store))
            .connection(connection, driver)
            .sink("local", Arc::new(sink))
            .notifier("terminal", Arc::new(terminal))
            .repository(connection, repo);
        for source in sources {
            builder = builder.source(source);
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

    /// Lets it work until Ctrl-C, and tells what is wrong meanwhile.
    pub(crate) async fn until_interrupted(self) -> Result<(), Box<dyn Error>> {
        let mut told = Vec::new();
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                interrupted = &mut interrupted => { interrupted?; break }
                () = tokio::time::sleep(Duration::from_secs(2)) => {
                    let problems = self.handle.health().await?.problems();
                    for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
                        eprintln!("{problem}");
                    }
                    told = problems;
                }
            }
        }
        self.stop().await
    }

    /// Prints what was decided of each event, and why.
    pub(crate) async fn print_decisions(&self) -> Result<(), Box<dyn Error>> {
        let tenant = Tenant::default();
        for event in self.handle.events(EventQuery::of(tenant.clone())).await?.items {
            println!("{}", self.handle.explain_event(&tenant, &event.key).await?);
        }
        Ok(())
    }

    /// Lets it finish what is under way, and stops it.
    pub(crate) async fn stop(self) -> Result<(), Box<dyn Error>> {
        self.shutdown.cancel();
        Ok(self.task.await?)
    }
}
