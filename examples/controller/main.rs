//! A controller of Workflows for a cluster with Tekton: to be deployed as it is, or to be copied and
//! changed. `deploy/` has the manifests.
//!
//! It follows the custom resources of `workflows.tekton.dev`, takes deliveries in at
//! `/hooks/<namespace>/<ScmConnection>`, executes runs as PipelineRuns, and answers questions at
//! `/v1/...`. One replica may keep its ledger in SQLite on a volume; several share one in Postgres.
//!
//! Read `composition.rs` first.

mod composition;
mod notifiers;
mod probes;
mod servers;
mod settings;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{composition::Composed, settings::Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&*error), "the controller has ended");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    // One provider for the whole process, before the first client is made.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shutdown = CancellationToken::new();
    tokio::spawn(end_when_told(shutdown.clone())?);
    let composed = Composed::of(&settings).await?;
    let done = CancellationToken::new();
    let servers = servers::start(&settings, &composed, shutdown.clone(), done.clone()).await?;
    let working = async {
        composed.run(shutdown.clone()).await;
        done.cancel();
        servers.await
    };
    tokio::select! {
        ended = working => ended?,
        () = too_late(&shutdown, Duration::from_secs(settings.grace_seconds)) => {
            tracing::warn!("what is under way does not come to its end and is broken off");
        }
    }
    tracing::info!("the controller has stopped");
    Ok(())
}

/// Waits until it is told to stop, and then for so long.
async fn too_late(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Ends everything at SIGTERM or SIGINT.
fn end_when_told(
    shutdown: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("it was told to stop; what is under way comes to its end");
        shutdown.cancel();
    })
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
