//! Logs of steps, from the pods that execute them.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use kube::api::LogParams;
use workflows_core::{
    Error, LogRef, Result,
    sink::{LogSource, SinkRun, last_bytes},
};

use super::TektonSink;
use crate::error::from_kube;

const OPERATION: &str = "read a log";

/// Where a step writes.
#[derive(Debug)]
pub(super) struct StepPlace {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// A pod's log is there as long as the pod is: Tekton keeps the pods of ended TaskRuns, and whoever
/// prunes runs removes them.
#[async_trait]
impl LogSource for TektonSink {
    fn stream(
        &self,
        run: &SinkRun,
        step: &LogRef,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes>> {
        self.read(run, step, LogParams { follow, ..LogParams::default() })
    }

    async fn tail(&self, run: &SinkRun, step: &LogRef, max_bytes: usize) -> Result<Bytes> {
        // So many lines hold `max_bytes` in all but the strangest logs; the rest stays in the
        // cluster.
        const LINES: i64 = 2_000;
        let params = LogParams { tail_lines: Some(LINES), ..LogParams::default() };
        last_bytes(self.read(run, step, params), max_bytes).await
    }
}

impl TektonSink {
    fn read(
        &self,
        run: &SinkRun,
        step: &LogRef,
        params: LogParams,
    ) -> BoxStream<'static, Result<Bytes>> {
        let (sink, run, step) = (self.clone(), run.clone(), step.clone());
        let opened = async move {
            let place = sink.step(&run, &step).await?;
            let params = LogParams { container: Some(place.container), ..params };
            let log = sink.pods(&place.namespace).log_stream(&place.pod, &params).await;
            log.map(chunks).map_err(|error| from_kube(OPERATION, error, sink.now()))
        };
        stream::once(opened).try_flatten().boxed()
    }
}

/// What a reader gives, a piece at a time, until it ends or breaks.
fn chunks(log: impl AsyncRead + Send + 'static) -> BoxStream<'static, Result<Bytes>> {
    const CHUNK: usize = 16 << 10;
    stream::try_unfold(Box::pin(log), |mut log| async move {
        let mut chunk = vec![0; CHUNK];
        let read = log.read(&mut chunk).await.map_err(|error| {
            Error::transient(OPERATION, "the log was broken off").caused_by(error)
        })?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), log)))
    })
    .boxed()
}
