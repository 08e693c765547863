//! A place where runs execute that is no part of any engine: it outlives them, and its log is the
//! proof of what happened.
//!
//! [`Executor`] serves on a port of this machine; [`ExecutorSink`] is how an engine reaches it. A run
//! says in its parameters in which `group` it is, what it is for (`branch`), and for how many
//! milliseconds it `takes`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use workflows_core::{
    CancelMode, Error, Result, RunPhase, RunSink, RunStatus,
    sink::{EnsuredRun, RunRequest, SinkRun},
};

/// How long a run goes on after it was told to end gently.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It was created, and started.
    Started,
    /// It was told to end.
    ToldToEnd,
    /// It ended by itself.
    Succeeded,
    /// It ended because it was told to.
    Stopped,
}

/// A line of the executor's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The run.
    pub run: String,
    /// The group that it said it is in.
    pub group: String,
    /// What it is for.
    pub branch: String,
    /// What happened.
    pub happened: Happened,
}

#[derive(Debug)]
struct Execution {
    group: String,
    branch: String,
    ends: Instant,
    told_to_end: bool,
    phase: RunPhase,
}

#[derive(Debug)]
struct Work {
    runs: BTreeMap<String, Execution>,
    log: Vec<Line>,
    file: File,
}

impl Work {
    fn note(&mut self, run: &str, happened: Happened) {
        let Some(execution) = self.runs.get(run) else { return };
        let line = Line {
            run: run.to_owned(),
            group: execution.group.clone(),
            branch: execution.branch.clone(),
            happened,
        };
        // The file is for whoever looks at a failure.
        let _ = writeln!(self.file, "{} {line:?}", jiff::Timestamp::now());
        self.log.push(line);
    }

    /// Ends what has come to its end.
    fn go_on(&mut self) {
        let now = Instant::now();
        let running = self.runs.iter().filter(|(_, run)| run.phase == RunPhase::Running);
        let ended: Vec<String> =
            running.filter(|(_, run)| run.ends <= now).map(|(key, _)| key.clone()).collect();
        for key in ended {
            let Some(run) = self.runs.get_mut(&key) else { continue };
            let (phase, happened) = match run.told_to_end {
                true => (RunPhase::Cancelled, Happened::Stopped),
                false => (RunPhase::Succeeded, Happened::Succeeded),
            };
            run.phase = phase;
            self.note(&key, happened);
        }
    }

    fn answer(&mut self, request: &Value) -> Option<Value> {
        self.go_on();
        let key = request["run"].as_str()?.to_owned();
        match request["do"].as_str()? {
            "ensure" => {
                if self.runs.contains_key(&key) {
                    return Some(json!({ "created": false }));
                }
                let param = |name: &str| {
                    let params = request["pipelineRun"]["spec"]["params"].as_array()?;
                    let found = params.iter().find(|param| param["name"] == name)?;
                    found["value"].as_str().map(str::to_owned)
                };
                let takes = Duration::from_millis(param("takes")?.parse().ok()?);
                let execution = Execution {
                    group: param("group")?,
                    branch: param("branch")?,
                    ends: Instant::now() + takes,
                    told_to_end: false,
                    phase: RunPhase::Running,
                };
                self.runs.insert(key.clone(), execution);
                self.note(&key, Happened::Started);
                Some(json!({ "created": true }))
            }
            "state" => Some(match self.runs.get(&key) {
                Some(run) => json!({ "phase": run.phase }),
                None => json!({ "phase": null }),
            }),
            "cancel" => {
                let at_once = request["mode"] == json!(CancelMode::AtOnce);
                if let Some(run) = self.runs.get_mut(&key)
                    && run.phase == RunPhase::Running
                    && (!run.told_to_end || at_once)
                {
                    let last = if at_once { Duration::ZERO } else { LAST_WORDS };
                    run.ends = run.ends.min(Instant::now() + last);
                    run.told_to_end = true;
                    self.note(&key, Happened::ToldToEnd);
                    self.go_on();
                }
                Some(json!({}))
            }
            _ => None,
        }
    }
}

/// The executor, in the process of the test.
#[derive(Debug)]
pub struct Executor {
    address: SocketAddr,
    work: Arc<Mutex<Work>>,
}

impl Executor {
    /// Begins to serve. The log is written to a file as well.
    ///
    /// # Errors
    ///
    /// When there is no port or file to be had.
    pub fn start(log: &Path) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let file = File::create(log)?;
        let work = Work { runs: BTreeMap::new(), log: Vec::new(), file };
        let work = Arc::new(Mutex::new(work));
        let serving = Arc::clone(&work);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let work = Arc::clone(&serving);
                thread::spawn(move || serve(&work, stream));
            }
        });
        let ending = Arc::downgrade(&work);
        thread::spawn(move || {
            while let Some(work) = ending.upgrade() {
                lock(&work).go_on();
                drop(work);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(Self { address, work })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The log so far.
    pub fn log(&self) -> Vec<Line> {
        lock(&self.work).log.clone()
    }

    /// How many runs execute now.
    pub fn running(&self) -> usize {
        lock(&self.work).runs.values().filter(|run| run.phase == RunPhase::Running).count()
    }
}

fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, one answer. An engine that dies in between is no matter.
fn serve(work: &Mutex<Work>, stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    let mut line = String::new();
    if BufReader::new(reading).read_line(&mut line).is_err() || !line.ends_with('\n') {
        return;
    }
    let Ok(request) = serde_json::from_str(&line) else { return };
    let answer = lock(work).answer(&request);
    if let Some(answer) = answer {
        let mut stream = stream;
        let _ = stream.write_all(format!("{answer}\n").as_bytes());
    }
}

/// A [`RunSink`] that has runs executed by an [`Executor`].
#[derive(Debug)]
pub struct ExecutorSink {
    address: SocketAddr,
}

impl ExecutorSink {
    /// The sink of the executor that serves there.
    pub fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    async fn ask(&self, operation: &'static str, request: Value) -> Result<Value> {
        let failed = |error: std::io::Error| {
            Error::transient(operation, "the executor did not answer").caused_by(error)
        };
        let mut stream = tokio::net::TcpStream::connect(self.address).await.map_err(failed)?;
        stream.write_all(format!("{request}\n").as_bytes()).await.map_err(failed)?;
        let mut line = String::new();
        tokio::io::BufReader::new(stream).read_line(&mut line).await.map_err(failed)?;
        serde_json::from_str(&line).map_err(|error| {
            Error::transient(operation, "the executor's answer was cut off").caused_by(error)
        })
    }
}

#[async_trait]
impl RunSink for ExecutorSink {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        let asked =
            json!({ "do": "ensure", "run": request.key, "pipelineRun": *request.pipeline_run });
        let answer = self.ask("ensure a run", asked).await?;
        let created = answer["created"] == json!(true);
        Ok(EnsuredRun { created, handle: Arc::clone(&request.name), link: None })
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        let answer =
            self.ask("read a run's state", json!({ "do": "state", "run": run.key })).await?;
        match serde_json::from_value(answer["phase"].clone()) {
            Ok(phase) => Ok(RunStatus::new(phase)),
            Err(_) => Err(Error::not_found("read a run's state", "there is no such run")),
        }
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        let asked = json!({ "do": "cancel", "run": run.key, "mode": mode });
        self.ask("cancel a run", asked).await.map(drop)
    }
}
