//! A repository on a server: asking for refs, and fetching the few objects that a reading needs.

use std::{
    collections::{BTreeSet, HashMap},
    io::Write as _,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use git2::{Oid, Repository};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use workflows_core::{Error, ErrorKind, Result};

use super::{
    REACH, Settings,
    address::Address,
    blocking,
    http::Http,
    object_cache::ObjectCache,
    objects::{self, Absent, Descent, Failure, Read},
    pkt::PacketReader,
    protocol::{self, Advertisement, COMMITS_ONLY, Fetch, ListedRef, NO_FILES, Reply},
    ssh::Ssh,
};

/// So many files are fetched together when several are waited for.
const FILES_AT_ONCE: usize = 64;

/// How many generations are fetched when a walk along the history meets a commit that is not there:
/// the first number, then the next.
const GENERATIONS: [u32; 5] = [1, 64, 1_024, 8_192, 65_536];

#[derive(Debug)]
pub(super) enum Transport {
    Http(Http),
    Ssh(Ssh),
}

/// A repository on a server.
#[derive(Debug)]
pub(super) struct Remote {
    address: Address,
    transport: Transport,
    objects: Arc<ObjectCache>,
    settings: Arc<Settings>,
    connections: Arc<Semaphore>,
    under_way: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
    files_waited_for: Mutex<BTreeSet<Oid>>,
}

/// Fetches with one key are not made at the same time: who waited finds what was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Commit(Oid),
    Trees(Oid),
    Files,
    Between(Oid, Oid),
}

impl Remote {
    pub(super) fn new(
        address: Address,
        transport: Transport,
        objects: ObjectCache,
        settings: Arc<Settings>,
        connections: Arc<Semaphore>,
    ) -> Self {
        Self {
            address,
            transport,
            objects: Arc::new(objects),
            settings,
            connections,
            under_way: Mutex::default(),
            files_waited_for: Mutex::default(),
        }
    }

    async fn exchange(
        &self,
        request: impl FnOnce(&Advertisement) -> Result<Vec<u8>>,
    ) -> Result<(PacketReader, Advertisement)> {
        let answer = match &self.transport {
            Transport::Http(http) => http.exchange(request).await,
            Transport::Ssh(ssh) => ssh.exchange(request).await,
        };
        answer.map_err(|error| error.with("repository", &self.address))
    }

    /// The refs under the prefixes.
    pub(super) async fn refs(&self, prefixes: &[Arc<str>]) -> Result<Vec<ListedRef>> {
        let _permit = self.connections.acquire().await;
        let (mut packets, _) = self.exchange(|offered| offered.ls_refs(prefixes)).await?;
        let most_bytes = self.settings.max_refs.saturating_mul(200).max(1 << 20);
        protocol::read_refs(&mut packets, self.settings.max_refs, most_bytes)
            .await
            .map_err(|error| error.with("repository", &self.address))
    }

    /// Reads out of the fetched objects, and fetches what is not there.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
    ) -> Result<T> {
        self.read_fetching(read, Want::Trees).await
    }

    async fn read_fetching<T: Send + 'static>(
        &self,
        read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
        want: Want,
    ) -> Result<T> {
        let read = Arc::new(read);
        let mut fetched = None;
        let mut rebuilt = false;
        let mut generations = GENERATIONS.into_iter();
        loop {
            let failure = match self.look(&read).await? {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            match failure {
                Failure::Answer(error) => return Err(error.with("repository", &self.address)),
                Failure::Damaged(error) if !rebuilt => {
                    tracing::warn!(repository = %self.address, %error,
                        "the cache of git objects is damaged; fetching again");
                    rebuilt = true;
                    fetched = None;
                    self.rebuild().await?;
                }
                Failure::Damaged(error) => {
                    return Err(Error::transient(REACH, "the fetched objects cannot be read")
                        .with("repository", &self.address)
                        .caused_by(error));
                }
                Failure::Absent(absent) if fetched == Some(absent) => {
                    if rebuilt {
                        return Err(not_there(absent).with("repository", &self.address));
                    }
                    // A damaged pack is passed over in silence.
                    rebuilt = true;
                    fetched = None;
                    self.rebuild().await?;
                }
                Failure::Absent(absent) => {
                    self.obtain(absent, want, &mut generations).await?;
                    fetched = Some(absent);
                }
            }
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        read: &Arc<impl Fn(&Repository) -> Read<T> + Send + Sync + 'static>,
    ) -> Result<Read<T>> {
        let objects = Arc::clone(&self.objects);
        let read = Arc::clone(read);
        blocking(&self.settings, move || Ok(read(&objects.open()?))).await
    }

    async fn rebuild(&self) -> Result<()> {
        let objects = Arc::clone(&self.objects);
        blocking(&self.settings, move || objects.rebuild()).await
    }

    async fn has(&self, id: Oid) -> Result<bool> {
        let objects = Arc::clone(&self.objects);
        blocking(&self.settings, move || Ok(objects.open()?.odb().is_ok_and(|odb| odb.exists(id))))
            .await
    }

    /// Fetches what is not there, unless somebody else just does so.
    async fn obtain(
        &self,
        absent: Absent,
        want: Want,
        generations: &mut impl Iterator<Item = u32>,
    ) -> Result<()> {
        let (key, object) = match (absent, want) {
            (Absent::Commit(id), Want::Trees) => (Key::Trees(id), id),
            (Absent::Commit(id), Want::Commits) => (Key::Commit(id), id),
            (Absent::Tree { of, tree }, _) => (Key::Trees(of), tree),
            (Absent::File(id), _) => {
                self.files_waited_for().insert(id);
                (Key::Files, id)
            }
        };
        let turn = self.turn(key.clone());
        let _turn = turn.lock().await;
        if self.has(object).await? {
            return Ok(());
        }
        let mut fetch = Fetch { wants: vec![object], done: true, ..Fetch::default() };
        match key {
            Key::Trees(commit) => {
                fetch.wants = vec![commit];
                fetch.depth = Some(1);
                fetch.filter = Some(NO_FILES);
            }
            Key::Commit(_) | Key::Between(..) => {
                let Some(depth) = generations.next() else {
                    return Err(Error::invalid(REACH, "the history is too long to be looked at")
                        .with("repository", &self.address));
                };
                fetch.depth = Some(depth);
                fetch.filter = Some(COMMITS_ONLY);
            }
            Key::Files => {
                let mut waited_for = self.files_waited_for();
                waited_for.remove(&object);
                while fetch.wants.len() < FILES_AT_ONCE
                    && let Some(id) = waited_for.pop_first()
                {
                    fetch.wants.push(id);
                }
            }
        }
        self.fetch(&fetch).await.map(|_| ())
    }

    fn files_waited_for(&self) -> std::sync::MutexGuard<'_, BTreeSet<Oid>> {
        self.files_waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = under_way.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        under_way.insert(key, Arc::downgrade(&turn));
        turn
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<Reply> {
        let _permit = self.connections.acquire().await;
        let (mut packets, _) = self.exchange(|offered| offered.fetch(fetch)).await?;
        let fetched = self.receive(&mut packets).await;
        fetched.map_err(|error| error.with("repository", &self.address))
    }

    /// Takes in the answer to a fetch.
    async fn receive(&self, packets: &mut PacketReader) -> Result<Reply> {
        /// The pack goes to the disk in pieces of this size.
        const PIECE: usize = 1 << 20;
        let reply = protocol::read_reply(packets).await?;
        if reply != Reply::Pack {
            return Ok(reply);
        }
        let objects = Arc::clone(&self.objects);
        let mut file = blocking(&self.settings, move || objects.receive()).await?;
        let mut piece = Vec::new();
        let mut received = 0_u64;
        while let Some(bytes) = protocol::next_of_pack(packets).await? {
            received += bytes.len() as u64;
            if received > self.settings.max_pack_bytes {
                return Err(Error::invalid(
                    REACH,
                    format!(
                        "the server sends more than {} bytes; raise the driver's limit if this is \
                         meant",
                        self.settings.max_pack_bytes
                    ),
                ));
            }
            piece.extend_from_slice(&bytes);
            if piece.len() >= PIECE {
                let full = std::mem::take(&mut piece);
                file = blocking(&self.settings, move || write(file, &full)).await?;
            }
        }
        let objects = Arc::clone(&self.objects);
        let limits = self.settings.pack_limits();
        blocking(&self.settings, move || {
            let mut file = write(file, &piece)?;
            objects.add(&mut file, limits)
        })
        .await?;
        Ok(reply)
    }

    /// What a commit says about itself; of its trees nothing is fetched.
    pub(super) async fn read_history<T: Send + 'static>(
        &self,
        read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
    ) -> Result<T> {
        self.read_fetching(read, Want::Commits).await
    }

    /// Whether one commit is in the history of another. The server is told that the ancestor is
    /// there, so that it sends only the commits between.
    pub(super) async fn is_ancestor(&self, ancestor: Oid, descendant: Oid) -> Result<bool> {
        let turn = self.turn(Key::Between(ancestor, descendant));
        let _turn = turn.lock().await;
        match self.descent(ancestor, descendant).await? {
            Descent::Found => return Ok(true),
            Descent::NotFound => return Ok(false),
            Descent::Unknown => {}
        }
        let mut fetch = Fetch {
            wants: vec![descendant],
            haves: vec![ancestor],
            filter: Some(COMMITS_ONLY),
            ..Fetch::default()
        };
        if let Reply::More { common } = self.fetch(&fetch).await? {
            if !common {
                // The server has the descendant and all before it, and has not this one.
                return Ok(false);
            }
            fetch.done = true;
            if self.fetch(&fetch).await? != Reply::Pack {
                return Err(protocol_broken().with("repository", &self.address));
            }
        }
        // All that is in the history of the descendant and not in that of the ancestor is there now.
        // What is not there lies before the ancestor, and so the ancestor does not lie before it.
        Ok(self.descent(ancestor, descendant).await? == Descent::Found)
    }

    async fn descent(&self, ancestor: Oid, descendant: Oid) -> Result<Descent> {
        let most = self.settings.max_history;
        let read =
            Arc::new(move |repo: &Repository| objects::descent(repo, ancestor, descendant, most));
        match self.look(&read).await? {
            Ok(descent) => Ok(descent),
            Err(Failure::Answer(error)) => Err(error.with("repository", &self.address)),
            Err(Failure::Absent(_)) => Ok(Descent::Unknown),
            Err(Failure::Damaged(_)) => {
                self.rebuild().await?;
                Ok(Descent::Unknown)
            }
        }
    }

    /// The newest commit on the first-parent line at or before an instant.
    pub(super) async fn first_parent_as_of(
        &self,
        tip: Oid,
        instant: Timestamp,
    ) -> Result<Option<Oid>> {
        let most = self.settings.max_history;
        self.read_history(move |repo| objects::first_parent_as_of(repo, tip, instant, most)).await
    }
}

/// Of a commit that is not there.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// It and its trees.
    Trees,
    /// It and those before it, without trees.
    Commits,
}

fn write(mut file: std::fs::File, bytes: &[u8]) -> Result<std::fs::File> {
    file.write_all(bytes).map_err(|error| {
        Error::transient(REACH, "the cache directory cannot be written").caused_by(error)
    })?;
    Ok(file)
}

fn protocol_broken() -> Error {
    super::pkt::broken("it sends no pack when told that nothing more is to say")
}

/// The error for an object that cannot be had.
pub(super) fn not_there(absent: Absent) -> Error {
    let (what, id) = match absent {
        Absent::Commit(id) => ("the repository does not have that commit", id),
        Absent::Tree { tree, .. } => ("the repository lacks a tree of that commit", tree),
        Absent::File(id) => ("the repository lacks the content of that file", id),
    };
    Error::new(ErrorKind::NotFound, REACH, what).with("object", id)
}
