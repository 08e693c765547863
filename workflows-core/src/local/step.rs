//! One step: a process that outlives this one, is started once, and whose end is never lost.
//!
//! A step runs under a keeper, a few lines of shell in a process group of its own. The keeper makes
//! the file `began`, which must not be there, runs the program, and writes its exit code to `exit`.
//! Where the system lets us, it enters a control group of the step's own before (see the module about
//! them). Its standard input, which its descendants inherit, is the step's lock file, on whose descriptor
//! the lock was taken before the keeper was started. Output goes straight to the file `log`. So after
//! the engine was killed, the directory tells all:
//!
//! | `exit` | lock | `began` | the step |
//! |--------|------|---------|----------|
//! | there  |      |         | ended with that code |
//! |        | held |         | runs |
//! |        | free | there   | was broken off: interrupted |
//! |        | free |         | was not started, and can be; after a reboot nobody knows: interrupted |

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    control_group, files,
    log_limit::{RunLogs, Watch},
    spec::STEP_MARKER,
    stragglers,
};

/// `$1` is the step's directory, `$2` its control group or nothing, the rest the program. No variable is set before the program has
/// run: it would be the program's too. The traps keep the keeper alive to write the code when its
/// group is told to end; the program gets the default actions.
const KEEPER: &str = r#"exec 9<&0
trap : HUP INT QUIT TERM
[ -z "$2" ] || echo 0 > "$2/cgroup.procs" || exit 125
set -C
echo "$$" > "$1/began" || exit 125
(shift 2; exec "$@")
set -- "$1" "$?"
echo "$2" > "$1/exit"
exit "$2"
"#;

/// What to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) directory: PathBuf,
    /// The program and its arguments; with a script, the interpreter and what it gets before it.
    pub(super) program: Vec<String>,
    /// The text of a script, whose path follows `program`.
    pub(super) script: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: PathBuf,
    /// Whether the directory is made when it is not there.
    pub(super) working_dir_is_ours: bool,
    /// In which control group the step's own is made.
    pub(super) groups: Option<PathBuf>,
    /// What is kept of its log.
    pub(super) logs: Arc<RunLogs>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum End {
    /// With an exit code; 128 and more for a signal, as a shell says it.
    Exited(i32),
    /// It could not be started.
    NotStarted(String),
    /// It was broken off while nobody watched.
    Interrupted,
}

/// `started.json`
#[derive(Debug, Serialize, Deserialize)]
struct StartedRecord {
    /// Which start of the machine it was, where the system tells.
    boot: Option<String>,
    /// The directory of its control group, where it has one.
    #[serde(default)]
    group: Option<PathBuf>,
}

/// A step that is looked after by a thread.
#[derive(Debug)]
pub(super) struct Running {
    process: Arc<Process>,
    end: oneshot::Receiver<End>,
}

/// The process of a step, while there is one.
#[derive(Debug)]
struct Process {
    directory: PathBuf,
    keeper: Mutex<Keeper>,
}

#[derive(Debug)]
enum Keeper {
    NotYet,
    /// It was told to end before there was one.
    Unwanted,
    /// A child that has not been waited for: its number is its own.
    Child(Pid),
    /// One that an earlier engine started.
    Adopted,
    Gone,
}

impl Process {
    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self) {
        let mut keeper = self.keeper();
        if matches!(*keeper, Keeper::Unwanted) {
            signal_adopted(&self.directory, Signal::TERM);
        }
        *keeper = Keeper::Adopted;
    }

    fn signal(&self, signal: Signal) {
        let mut keeper = self.keeper();
        match *keeper {
            Keeper::NotYet => *keeper = Keeper::Unwanted,
            Keeper::Child(pid) => {
                let _ = kill_process_group(pid, signal);
            }
            Keeper::Adopted => signal_adopted(&self.directory, signal),
            Keeper::Unwanted | Keeper::Gone => {}
        }
    }
}

impl Running {
    /// Sends a signal to the step's processes.
    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended, once it has and none of its processes is left.
    pub(super) async fn ended(&mut self) -> End {
        (&mut self.end).await.unwrap_or(End::Interrupted)
    }
}

#[cfg(target_os = "linux")]
fn signal_adopted(directory: &Path, signal: Signal) {
    stragglers::signal(directory, signal, true);
}

#[cfg(not(target_os = "linux"))]
fn signal_adopted(directory: &Path, signal: Signal) {
    if let Some(group) = adopted_group(directory) {
        let _ = kill_process_group(group, signal);
    }
}

/// The group of a keeper that is not a child. While the lock is held somebody of the group lives, so
/// that the number is not another's.
#[cfg(not(target_os = "linux"))]
fn adopted_group(directory: &Path) -> Option<Pid> {
    let began = files::read_bounded(&directory.join("began"), 32).ok()??;
    let number = std::str::from_utf8(&began).ok()?.trim().parse().ok()?;
    stragglers::lock_is_held(directory).then(|| Pid::from_raw(number))?
}

#[cfg(target_os = "linux")]
fn adopted_group(_directory: &Path) -> Option<Pid> {
    // The marks in /proc find every process of the group, without the doubt about its number.
    None
}

/// Whether the step was handed to the system before, so that it may be running.
pub(super) fn was_started(directory: &Path) -> bool {
    directory.join("started.json").exists()
}

/// Whether its end is known.
pub(super) fn has_ended(directory: &Path) -> bool {
    directory.join("ended.json").exists() || matches!(exit_code(directory), Ok(Some(_)))
}

/// Starts the step, or takes up what an earlier engine left of it.
pub(super) fn start(plan: Plan) -> Running {
    let (sender, end) = oneshot::channel();
    let process =
        Arc::new(Process { directory: plan.directory.clone(), keeper: Mutex::new(Keeper::NotYet) });
    let running = Running { process: process.clone(), end };
    let thread = std::thread::Builder::new().name("workflows-step".into());
    let spawned = thread.spawn(move || {
        let end =
            supervise(&plan, &process).unwrap_or_else(|error| End::NotStarted(error.to_string()));
        *process.keeper() = Keeper::Gone;
        // Nobody waits any more when the sink was dropped; the next one reads the directory.
        let _ = sender.send(end);
    });
    if let Err(error) = spawned {
        let (sender, end) = oneshot::channel();
        let _ = sender.send(End::NotStarted(format!("no thread to watch it: {error}")));
        return Running { end, ..running };
    }
    running
}

/// The control group in which a step was started, where it was.
pub(super) fn group_of(directory: &Path) -> Option<PathBuf> {
    let started: StartedRecord = files::read_record(&directory.join("started.json")).ok()??;
    // The steps of a run can write its records: nothing but a group of this step is believed.
    started.group.filter(|group| control_group::is_of(group, directory))
}

fn supervise(plan: &Plan, process: &Arc<Process>) -> io::Result<End> {
    let directory = &plan.directory;
    if let Some(end) = files::read_record(&directory.join("ended.json"))? {
        return Ok(end);
    }
    let watched = process.clone();
    let log = Watch::begin(directory, plan.logs.clone(), move || watched.signal(Signal::KILL));
    if let Err(error) = &log {
        tracing::warn!(step = %directory.display(), %error, "nothing limits the log of a step");
    }
    let end = run(plan, process);
    drop(log);
    let end = end?;
    files::write_record(&directory.join("ended.json"), &end)?;
    Ok(end)
}

fn run(plan: &Plan, process: &Process) -> io::Result<End> {
    let directory = &plan.directory;
    let started: Option<StartedRecord> = files::read_record(&directory.join("started.json"))?;
    let Some(started) = started else {
        return launch(plan, process);
    };
    // A look at the exit code before and after the look at the lock: it may end in between.
    if let Some(code) = exit_code(directory)? {
        stragglers::end(directory, adopted_group(directory));
        return Ok(End::Exited(code));
    }
    if stragglers::lock_is_held(directory) {
        process.adopt();
        return wait_for_adopted(directory);
    }
    if let Some(code) = exit_code(directory)? {
        stragglers::end(directory, None);
        return Ok(End::Exited(code));
    }
    let same_boot = started.boot.is_some() && started.boot == boot();
    if directory.join("began").exists() || !same_boot {
        stragglers::end(directory, None);
        return Ok(End::Interrupted);
    }
    launch(plan, process)
}

/// Makes the step's files and starts its keeper.
fn launch(plan: &Plan, process: &Process) -> io::Result<End> {
    let directory = &plan.directory;
    if plan.working_dir_is_ours {
        files::create_directory(&plan.working_dir)?;
    }
    if !plan.working_dir.is_dir() {
        let message = format!("its workingDir {:?} does not exist", plan.working_dir);
        return Ok(End::NotStarted(message));
    }
    files::create_directory(directory)?;
    let group = plan.groups.as_deref().map(|parent| control_group::of(parent, directory));
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(KEEPER).arg("keeper").arg(directory);
    command.arg(group.as_deref().unwrap_or(Path::new(""))).args(&plan.program);
    if let Some(script) = &plan.script {
        let path = directory.join("script");
        files::remove_file(&path)?;
        files::create_private(&path)?.write_all(script.as_bytes())?;
        command.arg(path);
    }
    let log = OpenOptions::new().append(true).create(true).open(directory.join("log"))?;
    command
        .args(&plan.args)
        .env_clear()
        .envs(plan.env.iter().map(|(name, value)| (name, value)))
        .env(STEP_MARKER, directory)
        .current_dir(&plan.working_dir)
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let record = StartedRecord { boot: boot(), group };
    files::write_record(&directory.join("started.json"), &record)?;
    if let Some(group) = &record.group {
        control_group::create(group)?;
    }
    let Some(lock) = files::try_lock(&directory.join("lock"))? else {
        process.adopt();
        return wait_for_adopted(directory);
    };
    let child = spawn(command, lock, process);
    match child {
        Ok(child) => wait_for_child(directory, child, process),
        Err(error) => Ok(End::NotStarted(format!("it could not be started: {error}"))),
    }
}

fn spawn(mut command: Command, lock: File, process: &Process) -> io::Result<Child> {
    let mut keeper = process.keeper();
    if matches!(*keeper, Keeper::Unwanted) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "it was stopped before"));
    }
    let child = command.stdin(Stdio::from(lock)).spawn()?;
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        *keeper = Keeper::Child(pid);
    }
    Ok(child)
}

/// Waits for a child, ends what it left, and only then lets the system forget its number.
fn wait_for_child(directory: &Path, mut child: Child, process: &Process) -> io::Result<End> {
    let pid = match *process.keeper() {
        Keeper::Child(pid) => Some(pid),
        _ => None,
    };
    if let Some(pid) = pid {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
    }
    stragglers::end(directory, pid);
    *process.keeper() = Keeper::Gone;
    let status = child.wait()?;
    // The keeper's own end is the program's, but for a file that could not be written.
    let code = match exit_code(directory)? {
        Some(code) => code,
        None => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
    };
    Ok(End::Exited(code))
}

/// Waits for a keeper that is not a child, by looking.
fn wait_for_adopted(directory: &Path) -> io::Result<End> {
    loop {
        let held = stragglers::lock_is_held(directory);
        if let Some(code) = exit_code(directory)? {
            stragglers::end(directory, adopted_group(directory));
            return Ok(End::Exited(code));
        }
        if !held {
            stragglers::end(directory, None);
            return Ok(End::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the keeper wrote; `None` until all of it is there.
fn exit_code(directory: &Path) -> io::Result<Option<i32>> {
    let Some(content) = files::read_bounded(&directory.join("exit"), 32)? else { return Ok(None) };
    let text = std::str::from_utf8(&content).unwrap_or_default();
    Ok(text.strip_suffix('\n').and_then(|code| code.parse().ok()))
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
