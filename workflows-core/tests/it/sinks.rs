//! The double for run sinks passes the suite for run sinks.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use workflows_core::{
    RunPhase, RunSink, Tenant,
    conformance::{
        ScriptedSink,
        sink::{SinkFixture, key_of},
    },
    sink::RunRequest,
};

#[derive(Debug)]
struct Scripted(ScriptedSink);

#[async_trait]
impl SinkFixture for Scripted {
    fn sink(&self) -> Arc<dyn RunSink> {
        Arc::new(self.0.clone())
    }

    fn request(&self, name: &str) -> RunRequest {
        RunRequest::new(key_of(name), Tenant::default(), name, json!({"spec": {}}))
    }

    async fn finish(&self, name: &str, well: bool) {
        let phase = if well { RunPhase::Succeeded } else { RunPhase::Failed };
        self.0.set_phase(&key_of(name), phase);
    }
}

workflows_core::sink_suite!(async {
    Arc::new(Scripted(ScriptedSink::new())) as Arc<dyn SinkFixture>
});
