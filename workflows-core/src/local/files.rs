//! Files that steps of a run may have tampered with: nothing here follows a link, waits on a pipe or
//! reads without a bound.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Serialize, de::DeserializeOwned};

/// Opens a regular file for reading; anything else that bears the name is an error.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    Ok(file)
}

/// The content of a regular file of at most `max_bytes`; `None` when there is none.
pub(super) fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        let message = format!("it has more than {max_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(content))
}

/// A record written by [`write_record`]; `None` when there is none.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    const LARGEST_RECORD: u64 = 64 << 20;
    match read_bounded(path, LARGEST_RECORD)? {
        None => Ok(None),
        Some(content) => Ok(Some(serde_json::from_slice(&content)?)),
    }
}

/// Writes a record so that a reader finds the whole of it or nothing, also after a loss of power.
pub(super) fn write_record(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_vec(record)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    // Of its own, for a thread of an earlier sink may still be recording the same.
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let unfinished = path.with_extension(format!("{}-{number}.unfinished", std::process::id()));
    remove_file(&unfinished)?;
    let mut file = create_private(&unfinished)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_directory(directory)
}

static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Does work on files where it holds up no other task.
pub(super) async fn off_thread<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Creates a file that only its owner can read; an existing one is an error.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates a directory, and those above it, for the owner alone.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file; none is success.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it, also what was made read-only; none is success.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    make_removable(path)?;
    fs::remove_dir_all(path)
}

fn make_removable(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Copies a tree of directories, files and links into a new directory and takes away the permission
/// to write. Other kinds of files are left out: they have no content.
pub(super) fn copy_read_only(from: &Path, to: &Path) -> io::Result<()> {
    create_directory(to)?;
    let mut directories = vec![(from.to_owned(), to.to_owned())];
    let mut next = 0;
    while let Some((source, target)) = directories.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            let (kind, target) = (entry.file_type()?, target.join(entry.file_name()));
            if kind.is_dir() {
                create_directory(&target)?;
                directories.push((entry.path(), target));
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
            } else if kind.is_file() {
                fs::copy(entry.path(), &target)?;
                let mode = entry.metadata()?.permissions().mode();
                fs::set_permissions(&target, Permissions::from_mode(mode & 0o555))?;
            }
        }
    }
    for (_, target) in directories.iter().rev() {
        fs::set_permissions(target, Permissions::from_mode(0o555))?;
    }
    Ok(())
}

/// Opens (and creates) a lock file and takes its lock, which is held for as long as any copy of the
/// descriptor is open in any process. `None` when somebody else holds it.
pub(super) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let file = open_regular(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_link_in_place_of_a_file_is_an_error_and_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let link = directory.path().join("link");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink("/etc/hosts", &link).unwrap();
        assert!(read_bounded(&pipe, 10).is_err());
        assert!(read_bounded(&link, 1 << 20).is_err());
        assert!(read_bounded(&directory.path().join("nothing"), 10).unwrap().is_none());
    }

    #[test]
    fn a_file_beyond_the_bound_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap().unwrap(), b"12345");
        assert!(read_bounded(&path, 4).is_err());
    }

    #[test]
    fn a_read_only_copy_leaves_the_original_alone_and_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        copy_read_only(&from, &to).unwrap();
        let copied = to.join("sub/file");
        assert_eq!(fs::read_to_string(&copied).unwrap(), "content");
        assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o222, 0);
        assert_eq!(fs::metadata(to.join("sub")).unwrap().permissions().mode() & 0o222, 0);
        remove_directory(&to).unwrap();
        assert!(!to.exists());
        assert!(from.join("sub/file").exists());
    }

    #[test]
    fn a_lock_is_held_until_the_last_copy_of_its_descriptor_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = try_lock(&path).unwrap().unwrap();
        let copy = held.try_clone().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_none());
        drop(copy);
        // A process that another test starts has copies of all descriptors until it is another program.
        while try_lock(&path).unwrap().is_none() {
            std::thread::yield_now();
        }
    }
}
