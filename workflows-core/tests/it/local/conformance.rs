//! The local sink passes the suite for run sinks.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use workflows_core::{
    RunSink,
    conformance::sink::{SinkFixture, key_of},
    sink::RunRequest,
};

use super::bench::{Bench, pipeline, request, task, write_pipe};

struct Local(Bench);

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Local").field(&self.0.sink).finish()
    }
}

#[async_trait]
impl SinkFixture for Local {
    fn sink(&self) -> Arc<dyn RunSink> {
        Arc::new(self.0.sink.clone())
    }

    fn request(&self, name: &str) -> RunRequest {
        let pipe = self.0.path(name);
        if !pipe.exists() {
            self.0.pipe(name);
        }
        let script = format!("read code < {}; exit $code", pipe.display());
        let mut request = request("", pipeline(json!([task("a", &script)])));
        request.key = key_of(name);
        request
    }

    async fn finish(&self, name: &str, well: bool) {
        write_pipe(&self.0.path(name), if well { "0\n" } else { "1\n" }).await;
    }
}

workflows_core::sink_suite!(async { Arc::new(Local(Bench::new().await)) as Arc<dyn SinkFixture> });
