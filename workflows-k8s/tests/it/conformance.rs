//! The suite that every sink passes.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use workflows_core::sink::{ChangedRun, EnsuredRun};
use workflows_core::{
    CancelMode, Result, RunSink, RunStatus,
    conformance::sink::SinkFixture,
    sink::{RunRequest, SinkRun},
};

use crate::world::{TEAM, World, request};

/// Tekton looks at its runs all the time: here, whenever somebody asks.
#[derive(Debug)]
struct Looking(World);

#[async_trait]
impl RunSink for Looking {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        self.0.sink.ensure(request).await
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        self.0.tekton.obey();
        self.0.sink.state(run).await
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        self.0.sink.cancel(run, mode).await
    }

    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        self.0.sink.changes()
    }
}

#[derive(Debug)]
struct Fixture(World);

#[async_trait]
impl SinkFixture for Fixture {
    fn sink(&self) -> Arc<dyn RunSink> {
        Arc::new(Looking(self.0.clone()))
    }

    fn request(&self, name: &str) -> RunRequest {
        request(name)
    }

    async fn finish(&self, name: &str, well: bool) {
        self.0.tekton.finish(TEAM, name, well);
    }
}

async fn fixture() -> Arc<dyn SinkFixture> {
    Arc::new(Fixture(World::new().await))
}

workflows_core::sink_suite!(fixture());
