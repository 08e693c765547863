//! The control group of a step: which processes are its, as the kernel knows it, whatever they do
//! to their session, environment and descriptors
//! (<https://docs.kernel.org/admin-guide/cgroup-v2.html>).
//!
//! A step gets a group of its own below the one that this process is in, where such groups can be
//! made: by root, in a container with a writable `/sys/fs/cgroup`, and in a service or session of
//! systemd that is delegated to its user.

use std::path::{Path, PathBuf};

/// The name of a step's group: nothing else has it, and nothing else is ever killed or removed.
fn name(step: &Path) -> String {
    let digits = crate::hash_of(&[&step.to_string_lossy()]);
    format!("workflows-step-{}", &digits[..32])
}

/// The directory of a step's group below a parent.
pub(super) fn of(parent: &Path, step: &Path) -> PathBuf {
    parent.join(name(step))
}

/// Whether a recorded directory can be that of the step's group.
pub(super) fn is_of(group: &Path, step: &Path) -> bool {
    group.file_name().is_some_and(|found| found == name(step).as_str())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs, io,
        path::{Path, PathBuf},
        process::Command,
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    /// The directory in which this process can make groups and put processes into them; `None` when
    /// it cannot.
    pub(in crate::local) fn parent() -> Option<PathBuf> {
        let parent = own_group(
            &fs::read_to_string("/proc/self/cgroup").ok()?,
            &fs::read_to_string("/proc/self/mountinfo").ok()?,
        )?;
        // Several sinks of a process may ask at the same time.
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let probe = parent.join(format!("workflows-probe-{}-{number}", std::process::id()));
        // An earlier process of that number may have left one.
        create(&probe).ok()?;
        let enters = Command::new("/bin/sh")
            .args(["-c", r#"echo 0 > "$1/cgroup.procs""#, "probe"])
            .arg(&probe)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let can_kill = probe.join("cgroup.kill").exists();
        remove_when_left(&probe);
        (enters && can_kill).then_some(parent)
    }

    /// Removes the group of a process that has ended: the kernel counts it out a moment later.
    fn remove_when_left(group: &Path) {
        const TRIES: usize = 50;
        for _ in 0..TRIES {
            match fs::remove_dir(group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return,
            }
        }
    }

    /// Where the group that a process is in is mounted, from its `cgroup` and `mountinfo`
    /// (<https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>).
    pub(super) fn own_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
        let group = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
        mountinfo.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            if kind.split(' ').next() != Some("cgroup2") {
                return None;
            }
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let below = Path::new(group).strip_prefix(root).ok()?;
            Some(Path::new(point).join(below))
        })
    }

    pub(in crate::local) fn create(group: &Path) -> io::Result<()> {
        match fs::create_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Kills all processes of a group; whether there were any.
    pub(in crate::local) fn kill(group: &Path) -> bool {
        let Ok(events) = fs::read_to_string(group.join("cgroup.events")) else { return false };
        let populated = events.lines().any(|line| line == "populated 1");
        if populated {
            // Also those that are being born; the next look tells.
            let _ = fs::write(group.join("cgroup.kill"), "1");
        }
        populated
    }

    /// Removes an empty group with those that processes of it made in it.
    pub(in crate::local) fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        // One that is left over is empty, and has a name that only this step uses.
        let _ = fs::remove_dir(group);
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{create, kill, parent, remove};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::{io, path::Path, path::PathBuf};

    pub(in crate::local) fn parent() -> Option<PathBuf> {
        None
    }

    pub(in crate::local) fn create(_group: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::local) fn kill(_group: &Path) -> bool {
        false
    }

    pub(in crate::local) fn remove(_group: &Path) {}
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{create, kill, parent, remove};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn who_asks_at_the_same_time_hears_the_same_and_leaves_nothing() {
        let asked: Vec<_> = (0..8).map(|_| std::thread::spawn(parent)).collect();
        let mut heard: Vec<_> = asked.into_iter().map(|one| one.join().unwrap()).collect();
        heard.dedup();
        assert_eq!(heard.len(), 1, "{heard:?}");
        let Some(Some(parent)) = heard.pop() else { return };
        let ours = format!("workflows-probe-{}-", std::process::id());
        let left = || {
            let all = std::fs::read_dir(&parent).unwrap().flatten();
            all.filter(|one| one.file_name().to_string_lossy().starts_with(&ours)).count()
        };
        // Other tests of this process may be asking.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while left() > 0 {
            assert!(std::time::Instant::now() < deadline, "{} are left", left());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let mountinfo = "\
24 30 0:22 / /proc rw,nosuid - proc proc rw
31 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            linux::own_group("0::/user.slice/app.scope\n", mountinfo).unwrap(),
            Path::new("/sys/fs/cgroup/user.slice/app.scope")
        );
        let hybrid = "40 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
41 24 0:31 /pod/a /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
        assert_eq!(
            linux::own_group("4:cpu:/\n0::/pod/a/b\n", hybrid).unwrap(),
            Path::new("/sys/fs/cgroup/unified/b")
        );
        assert_eq!(linux::own_group("0::/other\n", hybrid), None);
        assert_eq!(linux::own_group("4:cpu:/\n", hybrid), None);
    }

    #[test]
    fn only_a_directory_with_the_steps_own_name_is_its_group() {
        let step = Path::new("/runs/1/tasks/a/0/steps/main");
        assert!(is_of(&of(Path::new("/sys/fs/cgroup/x"), step), step));
        assert!(!is_of(Path::new("/sys/fs/cgroup/system.slice"), step));
        assert!(!is_of(&of(Path::new("/sys/fs/cgroup/x"), Path::new("/other")), step));
    }
}
