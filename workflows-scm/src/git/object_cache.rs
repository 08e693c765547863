//! The objects of a remote repository that were fetched, in a bare repository under the driver's
//! cache directory. All of it can be fetched again, so what is damaged or too large is thrown away.

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use git2::{ErrorCode, Repository, RepositoryInitOptions};
use workflows_core::{Error, Result};

use super::pack::{self, PackLimits};

const OPERATION: &str = "use the cache of git objects";

/// With more packs than this, each look-up becomes slow.
const MOST_PACKS: usize = 200;

/// The fetched objects of one remote. Every method blocks.
#[derive(Debug)]
pub(super) struct ObjectCache {
    /// `<cache directory>/<hash of the address>`; the repositories in it are numbered, and the one
    /// with the highest number is the present one.
    root: PathBuf,
    most_bytes: u64,
    present: Mutex<Option<Present>>,
}

#[derive(Debug, Clone, Copy)]
struct Present {
    number: u64,
    packs: usize,
    bytes: u64,
}

impl ObjectCache {
    pub(super) fn new(root: PathBuf, most_bytes: u64) -> Self {
        Self { root, most_bytes, present: Mutex::new(None) }
    }

    /// The repository; a new one when there is none that can be opened.
    pub(super) fn open(&self) -> Result<Repository> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_present(&mut present)
    }

    fn open_present(&self, present: &mut Option<Present>) -> Result<Repository> {
        let numbers = [present.map(|present| present.number), self.highest()];
        for number in numbers.into_iter().flatten() {
            match Repository::open_bare(self.path(number)) {
                Ok(repository) => {
                    if present.is_none_or(|present| present.number != number) {
                        *present = Some(measure(number, &self.path(number)));
                    }
                    return Ok(repository);
                }
                Err(error) if error.code() == ErrorCode::Owner => {
                    return Err(Error::denied(
                        OPERATION,
                        "the cache directory belongs to another user; give the driver one of its \
                         own",
                    )
                    .with("directory", self.root.display()));
                }
                Err(error) => {
                    tracing::debug!(directory = %self.path(number).display(), %error,
                        "a cache of git objects cannot be opened");
                }
            }
        }
        self.create(present)
    }

    /// Throws the present repository away and begins a new one.
    pub(super) fn rebuild(&self) -> Result<()> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        self.create(&mut present).map(|_| ())
    }

    /// Under a new number: handles to the old one may still be open, and are keyed by path.
    fn create(&self, present: &mut Option<Present>) -> Result<Repository> {
        let old = self.highest();
        let number = old.map_or(0, |old| old.saturating_add(1));
        let path = self.path(number);
        let mut options = RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false);
        let repository = Repository::init_opts(&path, &options).map_err(|error| {
            Error::transient(OPERATION, "the cache directory cannot be written")
                .with("directory", path.display())
                .caused_by(error)
        })?;
        if let Some(old) = old {
            let _ = fs::remove_dir_all(self.path(old));
        }
        *present = Some(Present { number, packs: 0, bytes: 0 });
        Ok(repository)
    }

    /// Adds the objects of a pack, after a look at what they would become.
    pub(super) fn add(&self, pack: &mut File, limits: PackLimits) -> Result<()> {
        let unreadable =
            |error| Error::transient(OPERATION, "the pack cannot be read back").caused_by(error);
        let size = pack.seek(SeekFrom::End(0)).map_err(unreadable)?;
        pack.rewind().map_err(unreadable)?;
        if pack::inspect(&mut BufReader::with_capacity(1 << 16, &mut *pack), limits)? == 0 {
            return Ok(());
        }
        pack.rewind().map_err(unreadable)?;

        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let full = present.is_some_and(|present| {
            present.packs > 0
                && (present.packs >= MOST_PACKS || present.bytes + size > self.most_bytes)
        });
        let repository =
            if full { self.create(&mut present)? } else { self.open_present(&mut present)? };
        if let Some(present) = present.as_mut() {
            present.packs += 1;
            present.bytes += size;
        }
        drop(present);

        let refused = |error: git2::Error| {
            Error::transient(OPERATION, "the pack that the server sent cannot be indexed")
                .caused_by(error)
        };
        let odb = repository.odb().map_err(refused)?;
        let mut writer = odb.packwriter().map_err(refused)?;
        io::copy(pack, &mut writer).map_err(|error| {
            Error::transient(OPERATION, "the pack that the server sent cannot be indexed")
                .caused_by(error)
        })?;
        writer.commit().map_err(refused)?;
        Ok(())
    }

    /// A file for a pack that is being received.
    pub(super) fn receive(&self) -> Result<File> {
        fs::create_dir_all(&self.root).and_then(|()| tempfile::tempfile_in(&self.root)).map_err(
            |error| {
                Error::transient(OPERATION, "the cache directory cannot be written")
                    .with("directory", self.root.display())
                    .caused_by(error)
            },
        )
    }

    fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{number}.git"))
    }

    fn highest(&self) -> Option<u64> {
        let entries = fs::read_dir(&self.root).ok()?;
        entries
            .filter_map(|entry| {
                entry.ok()?.file_name().to_str()?.strip_suffix(".git")?.parse().ok()
            })
            .max()
    }
}

fn measure(number: u64, path: &Path) -> Present {
    let mut present = Present { number, packs: 0, bytes: 0 };
    for entry in fs::read_dir(path.join("objects/pack")).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "pack") {
            present.packs += 1;
            present.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    present
}
