//! What steps have written, and write.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::{
    files,
    log_limit::LeftOut,
    run_directory::{AttemptDirectory, RunDirectory},
    sink::Shared,
    spec, step,
};
use crate::{
    Error, LogRef, Result, RunKey,
    sink::{LogSource, SinkRun},
};

const OPERATION: &str = "read a step's log";

/// The logs of a sink's runs. A task that was tried again has those of its newest attempt.
#[derive(Debug)]
pub(super) struct Logs(pub(super) Arc<Shared>);

/// The log of one step.
#[derive(Debug, Clone)]
struct Log {
    run: RunDirectory,
    key: RunKey,
    step: LogRef,
}

impl Log {
    fn new(shared: &Shared, run: &SinkRun, step: &LogRef) -> Result<Self> {
        let log = Self {
            run: RunDirectory::of(&shared.root, &run.key),
            key: run.key.clone(),
            step: step.clone(),
        };
        // The names become part of a path.
        let are_labels = spec::is_label(&step.task) && spec::is_label(&step.step);
        if !are_labels || !log.run.exists() || !shared.has_step(run, step) {
            return Err(log.not_found());
        }
        Ok(log)
    }

    fn not_found(&self) -> Error {
        Error::not_found(OPERATION, "there is no such step, or it has not started")
            .with("run", &self.key)
            .with("task", &self.step.task)
            .with("step", &self.step.step)
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => self.not_found(),
            _ => Error::transient(OPERATION, error.to_string())
                .with("task", &self.step.task)
                .with("step", &self.step.step)
                .caused_by(error),
        }
    }

    fn file(&self, attempt: &AttemptDirectory) -> PathBuf {
        attempt.step(&self.step.step).join("log")
    }

    fn open(&self) -> io::Result<Option<(AttemptDirectory, File)>> {
        let Some(attempt) = self.run.newest_attempt(&self.step.task) else { return Ok(None) };
        match files::open_regular(&self.file(&attempt)) {
            Ok(file) => Ok(Some((attempt, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn run_is_over(&self) -> bool {
        !self.run.exists() || self.run.has_ended()
    }

    fn is_over(&self, attempt: &AttemptDirectory) -> bool {
        let step = attempt.step(&self.step.step);
        step.join("ended.json").exists()
            || (step::has_ended(&step) && !super::stragglers::lock_is_held(&step))
            || attempt.path().join("ended.json").exists()
            || self.run_is_over()
    }

    fn tail(&self, max_bytes: usize) -> Result<Bytes> {
        let read = || -> io::Result<Option<Bytes>> {
            let Some((attempt, file)) = self.open()? else { return Ok(None) };
            let step = attempt.step(&self.step.step);
            loop {
                let left_out = LeftOut::of(&step)?;
                let length = file.metadata()?.len();
                let start = length.saturating_sub(max_bytes as u64);
                let mut tail = Vec::new();
                match left_out {
                    Some(LeftOut { from, to }) if start < to => {
                        read_range(&file, start, from, &mut tail)?;
                        tail.extend_from_slice(LeftOut::mark(to - from).as_bytes());
                        read_range(&file, to, length, &mut tail)?;
                        tail.drain(..tail.len().saturating_sub(max_bytes));
                    }
                    _ => read_range(&file, start, length, &mut tail)?,
                }
                // What was left out meanwhile may have been read as zeros.
                if LeftOut::of(&step)? == left_out {
                    return Ok(Some(tail.into()));
                }
            }
        };
        read().map_err(|error| self.failed(error))?.ok_or_else(|| self.not_found())
    }
}

/// Adds the bytes of a file from one place up to another.
fn read_range(file: &File, from: u64, to: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.resize(start + to.saturating_sub(from) as usize, 0);
    match into.get_mut(start..) {
        Some(room) => file.read_exact_at(room, from),
        None => Ok(()),
    }
}

/// How far a stream has got.
struct Reading {
    log: Log,
    follow: bool,
    open: Option<(AttemptDirectory, File)>,
    /// The place in the file of what comes next.
    at: u64,
}

enum Chunk {
    Bytes(Bytes),
    NothingYet,
    End,
}

impl Reading {
    /// Reads on, without waiting.
    fn read(&mut self) -> Result<Chunk> {
        const LARGEST_CHUNK: usize = 64 << 10;
        if self.open.is_none() {
            let over = self.log.run_is_over();
            self.open = self.log.open().map_err(|error| self.log.failed(error))?;
            if self.open.is_none() {
                return match self.follow && !over {
                    true => Ok(Chunk::NothingYet),
                    false => Err(self.log.not_found()),
                };
            }
        }
        let Some((attempt, file)) = &self.open else { return Ok(Chunk::End) };
        // Asked before reading: what was written before the end is then read.
        let over = !self.follow || self.log.is_over(attempt);
        let mut bytes = vec![0; LARGEST_CHUNK];
        let failed = |error| self.log.failed(error);
        let length = file.read_at(&mut bytes, self.at).map_err(failed)?;
        bytes.truncate(length);
        // Asked after reading: what was left out before it was read is then known.
        let left_out = LeftOut::of(&attempt.step(&self.log.step.step)).map_err(failed)?;
        let end = self.at + length as u64;
        self.at = match left_out {
            Some(LeftOut { from, to }) if (from..to).contains(&self.at) => {
                bytes = LeftOut::mark(to - self.at).into_bytes();
                to
            }
            Some(LeftOut { from, .. }) if self.at < from && from < end => {
                bytes.truncate((from - self.at) as usize);
                from
            }
            _ => end,
        };
        Ok(match (bytes.len(), over) {
            (0, true) => Chunk::End,
            (0, false) => Chunk::NothingYet,
            (_, _) => Chunk::Bytes(bytes.into()),
        })
    }
}

/// The next piece; waits, when following, until there is one.
async fn next(mut reading: Reading) -> Option<(Result<Bytes>, Option<Reading>)> {
    const LOOK_AGAIN: Duration = Duration::from_millis(50);
    loop {
        let log = reading.log.clone();
        let read = tokio::task::spawn_blocking(move || (reading.read(), reading)).await;
        let (chunk, back) = match read {
            Ok(read) => read,
            Err(error) => return Some((Err(log.failed(io::Error::other(error))), None)),
        };
        reading = back;
        match chunk {
            Ok(Chunk::Bytes(bytes)) => return Some((Ok(bytes), Some(reading))),
            Ok(Chunk::NothingYet) => tokio::time::sleep(LOOK_AGAIN).await,
            Ok(Chunk::End) => return None,
            Err(error) => return Some((Err(error), None)),
        }
    }
}

#[async_trait]
impl LogSource for Logs {
    fn stream(
        &self,
        run: &SinkRun,
        step: &LogRef,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes>> {
        match Log::new(&self.0, run, step) {
            Err(error) => stream::once(async { Err(error) }).boxed(),
            Ok(log) => {
                let reading = Reading { log, follow, open: None, at: 0 };
                stream::unfold(Some(reading), |reading| async { next(reading?).await }).boxed()
            }
        }
    }

    async fn tail(&self, run: &SinkRun, step: &LogRef, max_bytes: usize) -> Result<Bytes> {
        let log = Log::new(&self.0, run, step)?;
        let reading = log.clone();
        match tokio::task::spawn_blocking(move || reading.tail(max_bytes)).await {
            Ok(tail) => tail,
            Err(error) => Err(log.failed(io::Error::other(error))),
        }
    }
}
