//! Where a run keeps what it knows: a directory, made at once or not at all.
//!
//! ```text
//! <root>/lock                          held by the sink that uses the root
//! <root>/runs/<digits>/run.json        the request; present from the directory's first instant
//!                      credential.json until the run ends, for its owner alone
//!                      cancel.json     how it was asked to end
//!                      finally.json    when its finally tasks began
//!                      status.json     how it ended; with it, the run has ended
//!                      workspaces/<workspace>/
//!                      tasks/<task>/<attempt>/attempt.json, ended.json, home/, tmp/, results/,
//!                                              workspace/ (where steps start), workspaces/
//!                                              steps/<step>/ (see the module about steps)
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{files, variables::ParamValue};
use crate::{
    CancelMode, Error, GitFiles, Result, RunKey, RunStatus, Tenant, hash_of,
    sink::{StepStatus, TaskPhase},
};

/// `run.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunRecord {
    pub(super) key: RunKey,
    pub(super) tenant: Tenant,
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    pub(super) started_at: Timestamp,
    pub(super) pipeline_run: Arc<Value>,
}

/// `cancel.json`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct CancelRecord {
    pub(super) mode: CancelMode,
}

/// `finally.json`, `attempt.json`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StartRecord {
    pub(super) started_at: Timestamp,
}

/// An attempt's `ended.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttemptRecord {
    pub(super) phase: TaskPhase,
    pub(super) message: String,
    /// Whether it is not known how a step of it ended.
    pub(super) interrupted: bool,
    /// Whether it was ended because its run, or the section of the run, had to end.
    pub(super) stopped_with_run: bool,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) results: BTreeMap<String, ParamValue>,
    pub(super) steps: Vec<StepStatus>,
}

impl AttemptRecord {
    /// Whether another attempt may follow, where the task has one left.
    pub(super) fn may_be_tried_again(&self) -> bool {
        !self.stopped_with_run && matches!(self.phase, TaskPhase::Failed | TaskPhase::TimedOut)
    }
}

/// `credential.json`
#[derive(Serialize, Deserialize)]
pub(super) struct GitCredential {
    git_config: String,
    git_credentials: String,
}

impl GitCredential {
    pub(super) fn new(files: GitFiles) -> Self {
        Self {
            git_config: files.config,
            git_credentials: files.credentials.expose_secret().to_owned(),
        }
    }
}

/// A run's directory.
#[derive(Debug, Clone)]
pub(super) struct RunDirectory(PathBuf);

/// The directory of an attempt of a task.
#[derive(Debug, Clone)]
pub(super) struct AttemptDirectory(PathBuf);

impl RunDirectory {
    /// Where the run with that key is, or would be. A key is any text; the name is of hexadecimal
    /// digits, and short, since paths of sockets in it must be.
    pub(super) fn of(root: &Path, key: &RunKey) -> Self {
        let name = hash_of(&[key.as_str()]);
        Self(runs(root).join(&name[..32]))
    }

    /// A directory that was listed before.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.join("status.json").exists()
    }

    /// The directories of all steps of all attempts.
    pub(super) fn steps(&self) -> impl Iterator<Item = PathBuf> {
        let children = |directory: PathBuf| {
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
        };
        children(self.0.join("tasks"))
            .flat_map(children)
            .flat_map(move |attempt| children(attempt.join("steps")))
    }

    /// The directories of steps that were started and whose end is not recorded.
    pub(super) fn running_steps(&self) -> Vec<PathBuf> {
        self.steps()
            .filter(|step| step.join("started.json").exists())
            .filter(|step| !step.join("ended.json").exists())
            .collect()
    }

    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Makes the directory with its first records, all at once. `false` when it was there.
    pub(super) fn create(
        &self,
        record: &RunRecord,
        credential: Option<&GitCredential>,
    ) -> Result<bool> {
        if self.exists() {
            return Ok(false);
        }
        let failed = |error| io_error("create a run's directory", &self.0, error);
        let unfinished = self.0.with_extension("unfinished");
        files::remove_directory(&unfinished).map_err(failed)?;
        files::create_directory(&unfinished).map_err(failed)?;
        files::write_record(&unfinished.join("run.json"), record).map_err(failed)?;
        if let Some(credential) = credential {
            files::write_record(&unfinished.join("credential.json"), credential).map_err(failed)?;
        }
        match fs::rename(&unfinished, &self.0) {
            Ok(()) => {}
            Err(_) if self.exists() => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        files::sync_directory(self.0.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        Ok(true)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.0.join(name);
        files::read_record(&path).map_err(|error| io_error("read a run's record", &path, error))
    }

    fn write(&self, name: &str, record: &impl Serialize) -> Result<()> {
        let path = self.0.join(name);
        files::write_record(&path, record)
            .map_err(|error| io_error("write a run's record", &path, error))
    }

    pub(super) fn run(&self) -> Result<Option<RunRecord>> {
        self.read("run.json")
    }

    pub(super) fn cancel(&self) -> Result<Option<CancelRecord>> {
        self.read("cancel.json")
    }

    pub(super) fn record_cancel(&self, mode: CancelMode) -> Result<()> {
        self.write("cancel.json", &CancelRecord { mode })
    }

    pub(super) fn finally(&self) -> Result<Option<StartRecord>> {
        self.read("finally.json")
    }

    pub(super) fn record_finally(&self, started_at: Timestamp) -> Result<()> {
        self.write("finally.json", &StartRecord { started_at })
    }

    pub(super) fn status(&self) -> Result<Option<RunStatus>> {
        self.read("status.json")
    }

    /// Records how it ended and removes its credential.
    pub(super) fn record_status(&self, status: &RunStatus) -> Result<()> {
        self.remove_credentials()?;
        self.write("status.json", status)
    }

    fn task(&self, task: &str) -> PathBuf {
        self.0.join("tasks").join(task)
    }

    pub(super) fn attempt(&self, task: &str, attempt: u32) -> AttemptDirectory {
        AttemptDirectory(self.task(task).join(attempt.to_string()))
    }

    /// Whether a task has begun.
    pub(super) fn has_begun(&self, task: &str) -> bool {
        self.attempt(task, 0).0.join("attempt.json").exists()
    }

    /// The newest attempt of a task that has begun.
    pub(super) fn newest_attempt(&self, task: &str) -> Option<AttemptDirectory> {
        let mut newest = None;
        for number in 0.. {
            let attempt = self.attempt(task, number);
            if !attempt.0.join("attempt.json").exists() {
                break;
            }
            newest = Some(attempt);
        }
        newest
    }

    /// The directory of a workspace that lives as long as the run.
    pub(super) fn workspace(&self, name: &str) -> PathBuf {
        self.0.join("workspaces").join(name)
    }

    fn remove_credentials(&self) -> Result<()> {
        let failed = |error| io_error("remove a run's credential", &self.0, error);
        files::remove_file(&self.0.join("credential.json")).map_err(failed)?;
        let Ok(tasks) = fs::read_dir(self.0.join("tasks")) else { return Ok(()) };
        for task in tasks.flatten() {
            let Ok(attempts) = fs::read_dir(task.path()) else { continue };
            for attempt in attempts.flatten() {
                files::remove_file(&attempt.path().join("home/.git-credentials"))
                    .or_else(|error| match error.kind() {
                        io::ErrorKind::NotADirectory => Ok(()),
                        _ => Err(error),
                    })
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes all but the records of the run and its end: what `ensure` and `state` need.
    pub(super) fn strip(&self) -> io::Result<()> {
        for name in ["tasks", "workspaces"] {
            files::remove_directory(&self.0.join(name))?;
        }
        Ok(())
    }

    /// Removes it with all it holds. It is renamed first, so that half of it is never found.
    pub(super) fn remove(&self) -> io::Result<()> {
        let going = self.0.with_extension("unfinished");
        files::remove_directory(&going)?;
        match fs::rename(&self.0, &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        files::remove_directory(&going)
    }
}

impl AttemptDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory with what its steps expect to be there, and records the start.
    pub(super) fn begin(&self, run: &RunDirectory, now: Timestamp) -> io::Result<StartRecord> {
        if let Some(record) = files::read_record(&self.0.join("attempt.json"))? {
            return Ok(record);
        }
        for name in ["home", "tmp", "results", "workspace", "workspaces", "steps"] {
            files::create_directory(&self.0.join(name))?;
        }
        let credential: Option<GitCredential> = files::read_record(&run.0.join("credential.json"))?;
        if let Some(credential) = credential {
            use std::io::Write;
            for (name, content) in [
                (".gitconfig", &credential.git_config),
                (".git-credentials", &credential.git_credentials),
            ] {
                let path = self.0.join("home").join(name);
                files::remove_file(&path)?;
                files::create_private(&path)?.write_all(content.as_bytes())?;
            }
        }
        let record = StartRecord { started_at: now };
        files::write_record(&self.0.join("attempt.json"), &record)?;
        Ok(record)
    }

    pub(super) fn ended(&self) -> io::Result<Option<AttemptRecord>> {
        files::read_record(&self.0.join("ended.json"))
    }

    pub(super) fn record_ended(&self, record: &AttemptRecord) -> io::Result<()> {
        files::remove_file(&self.0.join("home/.git-credentials"))?;
        files::write_record(&self.0.join("ended.json"), record)
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Where its steps start.
    pub(super) fn work(&self) -> PathBuf {
        self.0.join("workspace")
    }

    /// The directory of a workspace that lives as long as the attempt.
    pub(super) fn workspace(&self, name: &str) -> PathBuf {
        self.0.join("workspaces").join(name)
    }

    /// The read-only copy of a workspace.
    pub(super) fn read_only(&self, name: &str) -> PathBuf {
        self.0.join("read-only").join(name)
    }

    pub(super) fn result(&self, name: &str) -> PathBuf {
        self.0.join("results").join(name)
    }

    pub(super) fn step(&self, name: &str) -> PathBuf {
        self.0.join("steps").join(name)
    }
}

/// The directory of the runs' directories.
pub(super) fn runs(root: &Path) -> PathBuf {
    root.join("runs")
}

/// The runs' directories of a root; what was left unfinished is removed.
pub(super) fn list(root: &Path) -> io::Result<Vec<RunDirectory>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(runs(root))? {
        let path = entry?.path();
        match path.extension() {
            Some(extension) if extension == "unfinished" => files::remove_directory(&path)?,
            _ => found.push(RunDirectory(path)),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The identity of a run in the form of a UUID, as Tekton has it (RFC 9562, version 8), from its
/// key: two sinks with the same key make the same one.
pub(super) fn uid(key: &RunKey) -> String {
    let digits = hash_of(&["uid", key.as_str()]);
    format!(
        "{}-{}-8{}-a{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..32]
    )
}

pub(super) fn io_error(operation: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => crate::ErrorKind::Invalid,
        _ => crate::ErrorKind::Transient,
    };
    Error::new(kind, operation, error.to_string()).with("path", path.display()).caused_by(error)
}
