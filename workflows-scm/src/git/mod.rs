//! Any git URL as a repository: `https://`, `http://`, `ssh://`, `user@host:path`, `file://` and
//! absolute paths.
//!
//! A server is asked for exactly what is needed, in version 2 of git's wire protocol: refs by
//! prefix, single commits without their history, trees without the files in them, and files one by
//! one. A repository of this machine is read where it is. What is at a commit is cached by commit.

mod address;
mod connection;
mod credentials;
mod http;
mod object_cache;
mod objects;
mod pack;
mod page;
mod pkt;
mod protocol;
mod remote;
mod ssh;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use git2::Oid;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use url::Url;
use workflows_core::{
    Capabilities, Capability, ConnectionName, Error, RepoConnection, RepoId, RepoRef, Result,
    ScmDriver, SecretStore, SharedClock, SystemClock, Tenant, hash_of, repo::Directory,
};

pub use self::credentials::GitCredentials;
use self::{
    address::Address,
    connection::{GitRepository, Place, open_here},
    credentials::{Access, Keyring, Kind},
    http::Http,
    object_cache::ObjectCache,
    pack::PackLimits,
    remote::{Remote, Transport},
    ssh::{Ssh, SshOptions},
};

/// The operation that errors of the transports name.
const REACH: &str = "reach git repository";

/// Reaches any git repository, with what plain git offers: refs, files and history. Plain git knows
/// no pull requests, permissions or statuses.
///
/// A driver either has a base, and a repository's name is a path below it (`acme/api`), or has none,
/// and the name is the whole address. The id of a repository is its normalised address.
///
/// ```
/// use workflows_scm::git::GitDriver;
///
/// # fn main() -> workflows_core::Result<()> {
/// let host = GitDriver::at("https://git.example.com/scm")?;
/// let anything = GitDriver::any()?;
/// # Ok(())
/// # }
/// ```
///
/// With a token out of a secret store, for one host only:
///
/// ```
/// use std::sync::Arc;
/// use workflows_core::{SecretRef, StaticSecrets, Tenant};
/// use workflows_scm::git::{GitCredentials, GitDriver};
///
/// # fn main() -> workflows_core::Result<()> {
/// let token = SecretRef { name: "git".into(), key: "token".into() };
/// let secrets = StaticSecrets::new().with(Tenant::default(), token.clone(), "t0ken");
/// let driver = GitDriver::builder()
///     .base("https://git.example.com")
///     .credentials(GitCredentials::basic("oauth2", token))
///     .secrets(Tenant::default(), Arc::new(secrets))
///     .build()?;
/// assert!(!format!("{driver:?}").contains("t0ken"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GitDriver {
    base: Option<Address>,
    web_base: Option<Url>,
    allowed: Vec<Address>,
    host: String,
    access: Access,
    client: reqwest::Client,
    settings: Arc<Settings>,
    caches: Arc<Caches>,
    connections: Arc<Semaphore>,
    cache_directory: CacheDirectory,
    remotes: Mutex<HashMap<String, Weak<Remote>>>,
}

/// Where fetched objects are kept.
#[derive(Debug)]
enum CacheDirectory {
    /// Removed with the driver.
    Temporary(TempDir),
    /// The caller's.
    Given(PathBuf),
}

impl CacheDirectory {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

/// What holds for every repository of a driver.
#[derive(Debug)]
struct Settings {
    connect_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    max_refs: usize,
    max_pack_bytes: u64,
    max_unpacked_bytes: u64,
    max_objects: u32,
    max_history: usize,
    max_compared: usize,
    ssh: SshOptions,
    clock: SharedClock,
    blocking: Arc<Semaphore>,
}

impl Settings {
    fn pack_limits(&self) -> PackLimits {
        PackLimits {
            objects: self.max_objects,
            object_bytes: self.max_pack_bytes,
            total_bytes: self.max_unpacked_bytes,
        }
    }
}

/// What never changes, by commit.
#[derive(Debug)]
struct Caches {
    files: moka::future::Cache<FileKey, Bytes>,
    directories: moka::future::Cache<DirectoryKey, Arc<Directory>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    repo: RepoId,
    commit: Oid,
    path: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DirectoryKey {
    repo: RepoId,
    commit: Oid,
    path: Arc<str>,
    recursive: bool,
    max_entries: usize,
}

impl Caches {
    fn new(bytes: u64) -> Self {
        const OVERHEAD: usize = 200;
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let files = moka::future::Cache::builder()
            .max_capacity(bytes / 2)
            .weigher(move |key: &FileKey, content: &Bytes| {
                weight(OVERHEAD + key.path.len() + content.len())
            })
            .build();
        let directories = moka::future::Cache::builder()
            .max_capacity(bytes / 2)
            .weigher(move |key: &DirectoryKey, directory: &Arc<Directory>| {
                let entries = directory.entries.iter().map(|entry| OVERHEAD + entry.path.len());
                weight(OVERHEAD + key.path.len() + entries.sum::<usize>())
            })
            .build();
        Self { files, directories }
    }
}

/// Runs work that blocks, of which only so much goes on at the same time.
async fn blocking<T: Send + 'static>(
    settings: &Settings,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = Arc::clone(&settings.blocking).acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.unwrap_or_else(|error| {
        Err(Error::transient(REACH, "the reading was broken off").caused_by(error))
    })
}

impl GitDriver {
    /// A driver for the repositories below an address, without credentials.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is no address.
    pub fn at(base: impl Into<String>) -> Result<Self> {
        Self::builder().base(base).build()
    }

    /// A driver for any address, without credentials. Whoever writes a repository's name decides
    /// where this process connects to and which directory it reads; see
    /// [`allow`](GitDriverBuilder::allow).
    ///
    /// # Errors
    ///
    /// `Transient` when no temporary directory can be made.
    pub fn any() -> Result<Self> {
        Self::builder().build()
    }

    /// A driver to be described.
    pub fn builder() -> GitDriverBuilder {
        GitDriverBuilder::default()
    }

    fn address_of(&self, repo: &str) -> Result<Address> {
        let address = match &self.base {
            Some(base) => base.join(repo)?,
            None => Address::parse(repo)?,
        };
        if address.is_only_a_host() {
            return Err(Error::invalid(
                "connect to git repository",
                "the address names a host and no repository on it",
            )
            .with("address", address));
        }
        self.check_allowed(&address)?;
        Ok(address)
    }

    fn check_allowed(&self, address: &Address) -> Result<()> {
        if self.allowed.is_empty() || self.allowed.iter().any(|outer| outer.contains(address)) {
            return Ok(());
        }
        Err(Error::denied(
            "connect to git repository",
            "the connection does not allow this address",
        )
        .with("address", address))
    }

    /// A directory may be a link out of what is allowed, so it is looked at where it really is.
    async fn find_directory(&self, path: PathBuf) -> Result<PathBuf> {
        let mut roots: Vec<PathBuf> = Vec::new();
        for address in self.base.iter().chain(&self.allowed) {
            if let Address::File(root) = address {
                roots.push(root.clone());
            }
        }
        blocking(&self.settings, move || {
            let real = std::fs::canonicalize(&path).map_err(|error| {
                let failure = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        Error::not_found(REACH, "there is no git repository")
                    }
                    std::io::ErrorKind::PermissionDenied => {
                        Error::denied(REACH, "the directory may not be read")
                    }
                    _ => Error::invalid(REACH, "the directory cannot be read"),
                };
                failure.with("directory", path.display()).caused_by(error)
            })?;
            let inside = |root: &PathBuf| {
                std::fs::canonicalize(root).is_ok_and(|root| real.starts_with(root))
            };
            if !roots.is_empty() && !roots.iter().any(inside) {
                return Err(Error::denied(REACH, "the directory is a link out of what is allowed")
                    .with("directory", path.display()));
            }
            open_here(&real)?;
            Ok(real)
        })
        .await
    }

    fn remote(&self, address: &Address, transport: Transport) -> Arc<Remote> {
        let id = address.to_string();
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        remotes.retain(|_, remote| remote.strong_count() > 0);
        if let Some(remote) = remotes.get(&id).and_then(Weak::upgrade) {
            return remote;
        }
        let directory = self.cache_directory.path().join(hash_of(&[&id]));
        let objects = ObjectCache::new(directory, self.settings.max_unpacked_bytes);
        let remote = Arc::new(Remote::new(
            address.clone(),
            transport,
            objects,
            Arc::clone(&self.settings),
            Arc::clone(&self.connections),
        ));
        remotes.insert(id, Arc::downgrade(&remote));
        remote
    }
}

#[async_trait]
impl ScmDriver for GitDriver {
    fn host(&self) -> &str {
        &self.host
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of([Capability::History])
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        let mut address = self.address_of(repo)?;
        let place = match &address {
            Address::File(path) => {
                let real = self.find_directory(path.clone()).await?;
                address = Address::File(real.clone());
                Place::Here(real)
            }
            Address::Http(url) => {
                let (client, access) = (self.client.clone(), self.access.clone());
                let http = Http::new(client, url.clone(), access, &self.settings);
                Place::There(self.remote(&address, Transport::Http(http)))
            }
            Address::Ssh(parts) => {
                let ssh = Ssh::new(parts.clone(), self.access.clone(), &self.settings);
                Place::There(self.remote(&address, Transport::Ssh(ssh)))
            }
        };
        let clone_url = address.to_string();
        Ok(Arc::new(GitRepository {
            repo: RepoRef {
                connection: connection.clone(),
                id: RepoId::new(clone_url.as_str()),
                name: repo.into(),
            },
            clone_url,
            page: self.web_base.as_ref().map(|base| page::of(base, repo)),
            place,
            settings: Arc::clone(&self.settings),
            caches: Arc::clone(&self.caches),
        }))
    }
}

/// Describes a [`GitDriver`].
#[derive(Debug)]
pub struct GitDriverBuilder {
    base: Option<String>,
    web_base: Option<String>,
    allowed: Vec<String>,
    credentials: Option<GitCredentials>,
    keyring: Option<Keyring>,
    cache_directory: Option<PathBuf>,
    root_certificates: Vec<Vec<u8>>,
    proxy: Option<String>,
    ssh: SshOptions,
    clock: SharedClock,
    connect_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    memory_bytes: u64,
    max_refs: usize,
    max_pack_bytes: u64,
    max_unpacked_bytes: u64,
    max_objects: u32,
    max_history: usize,
    max_compared: usize,
    concurrency: usize,
}

impl Default for GitDriverBuilder {
    fn default() -> Self {
        Self {
            base: None,
            web_base: None,
            allowed: Vec::new(),
            credentials: None,
            keyring: None,
            cache_directory: None,
            root_certificates: Vec::new(),
            proxy: None,
            ssh: SshOptions { program: PathBuf::from("ssh"), known_hosts: None },
            clock: Arc::new(SystemClock),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
            memory_bytes: 32 << 20,
            max_refs: 100_000,
            max_pack_bytes: 128 << 20,
            max_unpacked_bytes: 512 << 20,
            max_objects: 2_000_000,
            max_history: 100_000,
            max_compared: 200_000,
            concurrency: 16,
        }
    }
}

impl GitDriverBuilder {
    /// The address below which all repositories lie; their names are paths below it.
    #[must_use]
    pub fn base(mut self, address: impl Into<String>) -> Self {
        self.base = Some(address.into());
        self
    }

    /// Where people look at the repositories (`https://git.example.com/cgit`): the page of each is its
    /// name below that. Plain git says nothing of pages, so that there are none without it.
    #[must_use]
    pub fn web_base(mut self, address: impl Into<String>) -> Self {
        self.web_base = Some(address.into());
        self
    }

    /// Allows this repository, or everything below this address; may be called several times. When
    /// it is never called, everything (below the base) is allowed.
    #[must_use]
    pub fn allow(mut self, address: impl Into<String>) -> Self {
        self.allowed.push(address.into());
        self
    }

    /// What servers are shown. HTTP credentials go to the origin of a repository's own address, and
    /// not to where a redirect leads.
    #[must_use]
    pub fn credentials(mut self, credentials: GitCredentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Where the secrets that the credentials name are, and in which tenant.
    #[must_use]
    pub fn secrets(mut self, tenant: Tenant, store: Arc<dyn SecretStore>) -> Self {
        self.keyring = Some(Keyring { tenant, store });
        self
    }

    /// A directory for fetched objects, kept between runs; it is made when it is not there. By
    /// default a temporary one that goes with the driver. All in it can be thrown away. What lies in
    /// it is read without asking the server again, so drivers with different credentials must not
    /// share one.
    #[must_use]
    pub fn cache_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_directory = Some(path.into());
        self
    }

    /// Trusts one more authority (PEM, one or more certificates) besides those of the system.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Reaches http and https servers through this proxy. The environment is not asked for one.
    #[must_use]
    pub fn proxy(mut self, address: impl Into<String>) -> Self {
        self.proxy = Some(address.into());
        self
    }

    /// The program that is called for ssh; by default `ssh`, found in the path.
    #[must_use]
    pub fn ssh_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.ssh.program = program.into();
        self
    }

    /// The file with the keys of the hosts, instead of the user's and the system's. A host whose
    /// key is not known is always refused.
    #[must_use]
    pub fn known_hosts(mut self, file: impl Into<PathBuf>) -> Self {
        self.ssh.known_hosts = Some(file.into());
        self
    }

    /// The time that a server's `Retry-After` counts from; by default the system's.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// How long making a connection may take. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a server may be silent. Default: 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// How long one operation may take as a whole. Default: 120 s.
    #[must_use]
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout = limit;
        self
    }

    /// How many bytes of files and listings are kept in memory. Default: 32 MiB.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// How many refs one listing may have. Default: 100,000.
    #[must_use]
    pub fn max_refs(mut self, refs: usize) -> Self {
        self.max_refs = refs;
        self
    }

    /// How many bytes one fetch may bring; no single object may be larger either. Default: 128 MiB.
    #[must_use]
    pub fn max_pack_bytes(mut self, bytes: u64) -> Self {
        self.max_pack_bytes = bytes;
        self
    }

    /// How many bytes one fetch may unpack to, and how many packed bytes are cached on disk for one
    /// repository. Default: 512 MiB.
    #[must_use]
    pub fn max_unpacked_bytes(mut self, bytes: u64) -> Self {
        self.max_unpacked_bytes = bytes;
        self
    }

    /// How many objects one fetch may bring. Default: 2,000,000.
    #[must_use]
    pub fn max_objects(mut self, objects: u32) -> Self {
        self.max_objects = objects;
        self
    }

    /// How many commits one question about the history may look at. Default: 100,000.
    #[must_use]
    pub fn max_history(mut self, commits: usize) -> Self {
        self.max_history = commits;
        self
    }

    /// How many entries one comparison of two commits may look at. Default: 200,000.
    #[must_use]
    pub fn max_compared(mut self, entries: usize) -> Self {
        self.max_compared = entries;
        self
    }

    /// How many conversations with servers, and how many readings of disks, go on at the same time.
    /// Default: 16.
    #[must_use]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = limit.max(1);
        self
    }

    /// The driver.
    ///
    /// # Errors
    ///
    /// `Invalid` when an address, a certificate or the proxy cannot be read, when credentials name
    /// a secret and there is no secret store, or when there are credentials and neither a base nor
    /// an allowed address: whoever names a repository could then send them to a host of his own.
    /// `Transient` when no temporary directory can be made.
    pub fn build(self) -> Result<GitDriver> {
        const OPERATION: &str = "build the git driver";
        let base = self.base.as_deref().map(Address::parse).transpose()?;
        let allowed =
            self.allowed.iter().map(|text| Address::parse(text)).collect::<Result<Vec<_>>>()?;
        let web_base = self.web_base.as_deref().map(page::read_base).transpose()?;
        if web_base.is_some() && base.is_none() {
            return Err(Error::invalid(
                OPERATION,
                "a web base needs a base too: pages are found by the names below it",
            ));
        }
        let credentials = self.credentials.map(|credentials| credentials.0);
        let named = matches!(
            credentials,
            Some(Kind::Basic { .. } | Kind::Bearer { .. } | Kind::SshKey { .. })
        );
        if named && self.keyring.is_none() {
            return Err(Error::invalid(
                OPERATION,
                "the credentials name a secret, and there is no secret store; call `secrets`",
            ));
        }
        let anybody_s = matches!(credentials, None | Some(Kind::SshOfTheUser));
        if !anybody_s && base.is_none() && allowed.is_empty() {
            return Err(Error::invalid(
                OPERATION,
                "credentials need a base or an allowed address, so that they are shown to no other \
                 host",
            ));
        }
        let settings = Settings {
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            total_timeout: self.total_timeout,
            max_refs: self.max_refs,
            max_pack_bytes: self.max_pack_bytes,
            max_unpacked_bytes: self.max_unpacked_bytes,
            max_objects: self.max_objects,
            max_history: self.max_history,
            max_compared: self.max_compared,
            ssh: self.ssh,
            clock: self.clock,
            blocking: Arc::new(Semaphore::new(self.concurrency)),
        };
        let client = http::client(&settings, &self.root_certificates, self.proxy.as_deref())?;
        let cache_directory = match self.cache_directory {
            Some(path) => CacheDirectory::Given(path),
            None => CacheDirectory::Temporary(
                tempfile::Builder::new().prefix("workflows-git-").tempdir().map_err(|error| {
                    Error::transient(OPERATION, "no temporary directory can be made")
                        .caused_by(error)
                })?,
            ),
        };
        Ok(GitDriver {
            host: base.as_ref().map_or("git", Address::host).to_owned(),
            base,
            web_base,
            allowed,
            access: Access { credentials, keyring: self.keyring },
            client,
            settings: Arc::new(settings),
            caches: Arc::new(Caches::new(self.memory_bytes)),
            connections: Arc::new(Semaphore::new(self.concurrency)),
            cache_directory,
            remotes: Mutex::default(),
        })
    }
}
