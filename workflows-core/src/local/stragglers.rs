//! Processes that a step left behind, and how they are ended.
//!
//! Where a step has a control group, the kernel knows its processes. Else, and besides, they are
//! known by three signs: the process group that its first one leads, the
//! environment variable [`STEP_MARKER`] with which each starts, and the step's lock, of which each
//! inherits a descriptor. A process has to leave the group, clear its environment and close what it
//! inherited to bear none of them; programs that go into the background do one or two. The last two
//! signs are read from `/proc` and are thus Linux's.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{control_group, files, spec::STEP_MARKER, step};

/// Kills whatever of a step is alive and returns when nothing is. `group` is its process group, while
/// that number is certain to be its.
pub(super) fn end(step: &Path, group: Option<Pid>) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    let control_group = step::group_of(step);
    loop {
        let populated = control_group.as_deref().is_some_and(control_group::kill);
        if let Some(group) = group {
            // An empty group is the aim.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let held = lock_is_held(step);
        // A child between fork and exec has copies of all descriptors of this process for a moment,
        // so that a lock that is held only now proves nothing.
        let by_descriptor = held && began.elapsed() > Duration::from_millis(50);
        let found = signal(step, Signal::KILL, by_descriptor);
        if found == 0 && !held && !populated {
            if let Some(group) = &control_group {
                control_group::remove(group);
            }
            return;
        }
        if began.elapsed() > PATIENCE {
            tracing::warn!(
                step = %step.display(),
                "processes of a step that ended are still there and cannot be killed"
            );
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Whether some process has a descriptor of the step's lock.
pub(super) fn lock_is_held(step: &Path) -> bool {
    matches!(files::try_lock(&step.join("lock")), Ok(None))
}

/// Sends a signal to each process that bears the step's mark, or, where asked, has its lock open.
/// Returns how many there were.
#[cfg(target_os = "linux")]
pub(super) fn signal(step: &Path, signal: Signal, also_by_descriptor: bool) -> usize {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

    let mark = mark(step);
    let lock = step.join("lock");
    let belongs = |process: &Path| {
        has_mark(process, &mark) || (also_by_descriptor && has_open(process, &lock))
    };
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let own = std::process::id();
    let mut found = 0;
    for process in processes.flatten() {
        let number = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.filter(|number| *number as u32 != own).and_then(Pid::from_raw)
        else {
            continue;
        };
        let directory = process.path();
        if !belongs(&directory) {
            continue;
        }
        // The number may by now be another process's: a descriptor pins the one that is judged.
        let Ok(pinned) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if belongs(&directory) {
            found += 1;
            let _ = pidfd_send_signal(&pinned, signal);
        }
    }
    found
}

/// Without `/proc` only the process group is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal(_step: &Path, _signal: Signal, _also_by_descriptor: bool) -> usize {
    0
}

/// `NAME=value` as it stands in the environment of each process of the step.
#[cfg(target_os = "linux")]
fn mark(step: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    [STEP_MARKER.as_bytes(), b"=", step.as_os_str().as_bytes()].concat()
}

#[cfg(target_os = "linux")]
fn has_mark(process: &Path, mark: &[u8]) -> bool {
    std::fs::read(process.join("environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

#[cfg(target_os = "linux")]
fn has_open(process: &Path, file: &Path) -> bool {
    let program = |process: &Path| std::fs::read_link(process.join("exe")).ok();
    // A child of this very process that has not become another program yet.
    if program(process) == program(Path::new("/proc/self")) {
        return false;
    }
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        std::fs::read_link(descriptor.path()).is_ok_and(|target: PathBuf| target == file)
    })
}
