//! How much of what steps write is kept: the beginning and the end.
//!
//! Steps write straight to a file, so that they go on while no engine runs. A thread beside each
//! running step looks at the file, and when it holds too much gives its middle back to the file
//! system as a hole. What was left out is recorded in `left-out.json` before it is gone, so that
//! nobody takes the zeros of a hole for what a step wrote.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::files;

/// What a step may keep whatever the other steps of its run wrote.
const LEAST: u64 = 64 << 10;

/// How many bytes of logs are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    pub(super) step: u64,
    pub(super) run: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { step: 16 << 20, run: 128 << 20 }
    }
}

/// The logs of one run.
#[derive(Debug)]
pub(super) struct RunLogs {
    limits: LogLimits,
    kept: AtomicU64,
}

impl RunLogs {
    /// Of a run whose steps have that much already.
    pub(super) fn new(limits: LogLimits, kept: u64) -> Self {
        Self { limits, kept: AtomicU64::new(kept) }
    }

    /// How much a step may keep now.
    fn allowance(&self) -> u64 {
        let step = self.limits.step.max(LEAST);
        match self.kept.load(Ordering::Relaxed) > self.limits.run {
            true => step.min(LEAST),
            false => step,
        }
    }

    fn note(&self, before: u64, now: u64) {
        self.kept.fetch_add(now, Ordering::Relaxed);
        self.kept.fetch_sub(before, Ordering::Relaxed);
    }
}

/// `left-out.json`: the bytes from one place in the log up to another are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl LeftOut {
    /// What is missing in the log of that step.
    pub(super) fn of(step: &Path) -> io::Result<Option<Self>> {
        files::read_record(&step.join("left-out.json"))
    }

    /// What stands in the place of that many bytes.
    pub(super) fn mark(bytes: u64) -> String {
        format!("\n[{bytes} bytes of this log were left out]\n")
    }
}

/// How many bytes of a step's log are there.
pub(super) fn kept(step: &Path) -> u64 {
    let Ok(log) = files::open_regular(&step.join("log")) else { return 0 };
    let length = log.metadata().map_or(0, |log| log.len());
    let missing = LeftOut::of(step).ok().flatten().map_or(0, |left| left.to - left.from);
    length.saturating_sub(missing)
}

/// Keeps the log of a running step within its limits until it is dropped, which looks once more.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `give_up` ends the step; it is called when nothing can be left out on this file system.
    pub(super) fn begin(
        step: &Path,
        run: Arc<RunLogs>,
        give_up: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        const EVERY: Duration = Duration::from_millis(50);
        let step = step.to_owned();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("workflows-log".into()).spawn(move || {
            // What was there before is in the run's sum.
            let mut before = kept(&step);
            loop {
                let wait = stopped.recv_timeout(EVERY);
                let limited = limit(&step, &run, before, punch);
                match limited {
                    Ok(now) => before = now,
                    Err(error) => {
                        tracing::warn!(step = %step.display(), %error, "a step is ended for its log");
                        let _ = append(&step, ENDED);
                        give_up();
                        return;
                    }
                }
                if !matches!(wait, Err(mpsc::RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

const ENDED: &str = "\n[the step was ended: it wrote more than is kept of a log, and on this file \
                     system the middle cannot be left out]\n";

fn open(step: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(flags.bits() as i32)
        .open(step.join("log"));
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // What a step put in its place is its own loss.
        Err(_) => Ok(None),
    }
}

fn append(step: &Path, text: &str) -> io::Result<()> {
    match open(step)? {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => Ok(()),
    }
}

/// Brings a log within its limits; returns how much is kept of it. An error when it cannot be.
fn limit(
    step: &Path,
    run: &RunLogs,
    before: u64,
    punch: impl Fn(&File, u64, u64) -> io::Result<()>,
) -> io::Result<u64> {
    const BLOCK: u64 = 4096;
    let Some(file) = open(step)? else { return Ok(before) };
    let length = file.metadata()?.len();
    let known = LeftOut::of(step)?;
    let missing = known.map_or(0, |left| left.to - left.from);
    let now = length.saturating_sub(missing);
    run.note(before, now);
    let allowance = run.allowance();
    if now <= allowance {
        return Ok(now);
    }
    // Less than is allowed, so that this is done now and then and not all the time.
    let from = (allowance / 4).next_multiple_of(BLOCK);
    let from = known.map_or(from, |left| left.from.min(from));
    let to = length.saturating_sub(allowance / 2) / BLOCK * BLOCK;
    if to <= from {
        return Ok(now);
    }
    files::write_record(&step.join("left-out.json"), &LeftOut { from, to })?;
    punch(&file, from, to - from)?;
    let kept = length.saturating_sub(to - from);
    run.note(now, kept);
    Ok(kept)
}

#[cfg(target_os = "linux")]
fn punch(file: &File, from: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, length)?)
}

#[cfg(not(target_os = "linux"))]
fn punch(_file: &File, _from: u64, _length: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_with_log(bytes: usize) -> tempfile::TempDir {
        let step = tempfile::tempdir().unwrap();
        std::fs::write(step.path().join("log"), vec![b'x'; bytes]).unwrap();
        step
    }

    #[test]
    fn when_a_run_has_too_much_each_further_log_keeps_the_least() {
        let step = step_with_log(200 << 10);
        let run = RunLogs::new(LogLimits { step: 1 << 20, run: 300 << 10 }, 150 << 10);
        let kept = limit(step.path(), &run, 0, |_, _, _| Ok(())).unwrap();
        assert!(kept <= LEAST, "{kept}");
        let left = LeftOut::of(step.path()).unwrap().unwrap();
        assert_eq!(left.to - left.from, (200 << 10) - kept);
        assert_eq!(run.kept.load(Ordering::Relaxed), (150 << 10) + kept);
    }

    #[test]
    fn what_is_left_out_grows_and_never_comes_back() {
        let step = step_with_log(300 << 10);
        let run = RunLogs::new(LogLimits { step: 128 << 10, run: 1 << 20 }, 0);
        let first = limit(step.path(), &run, 0, |_, _, _| Ok(())).unwrap();
        let left = LeftOut::of(step.path()).unwrap().unwrap();
        append(step.path(), &"y".repeat(300 << 10)).unwrap();
        let second = limit(step.path(), &run, first, |_, _, _| Ok(())).unwrap();
        let more = LeftOut::of(step.path()).unwrap().unwrap();
        assert_eq!(more.from, left.from);
        assert!(more.to > left.to);
        assert!(second <= 128 << 10);
        assert_eq!(kept(step.path()), second);
    }

    #[test]
    fn where_no_hole_can_be_made_it_is_an_error() {
        let step = step_with_log(300 << 10);
        let run = RunLogs::new(LogLimits { step: 128 << 10, run: 1 << 20 }, 0);
        let refuse = |_: &File, _, _| Err(io::Error::from(io::ErrorKind::Unsupported));
        assert!(limit(step.path(), &run, 0, refuse).is_err());
    }
}
