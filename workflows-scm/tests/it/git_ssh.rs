//! The git driver over ssh: through a stand-in that runs the command here, and through a real sshd
//! where there is one.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use workflows_core::{
    ErrorKind, RepoConnection, SecretRef, StaticSecrets, Tenant, repo::ReadLimit,
};
use workflows_scm::git::{GitCredentials, GitDriver};

use crate::support::{Root, connect};

/// A program that is called as `ssh` is, notes its arguments and environment, and runs the command
/// on this machine.
#[derive(Debug)]
pub(crate) struct StandIn {
    directory: TempDir,
}

impl StandIn {
    /// With some lines of shell before the command is run.
    pub(crate) fn new(before: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notes = directory.path().join("notes").display().to_string();
        let script = format!(
            "#!/bin/sh\n\
             {{ printf '%s\\n' \"$@\"; echo --; env; }} >> '{notes}'\n\
             for last in \"$@\"; do :; done\n\
             {before}\n\
             GIT_CONFIG_GLOBAL=/dev/null exec /bin/sh -c \"$last\"\n"
        );
        let program = directory.path().join("ssh");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("ssh")
    }

    fn notes(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("notes")).unwrap()
    }

    fn driver(&self) -> GitDriver {
        self.driver_with(GitCredentials::ssh_key_file("/keys/id"))
    }

    fn driver_with(&self, credentials: GitCredentials) -> GitDriver {
        let secret = SecretRef { name: "git".into(), key: "ssh".into() };
        let secrets = StaticSecrets::new().with(Tenant::default(), secret, "-----KEY-----");
        GitDriver::builder()
            .allow("ssh://git@host:2222")
            .credentials(credentials)
            .secrets(Tenant::default(), Arc::new(secrets))
            .known_hosts("/keys/known hosts")
            .ssh_program(self.program())
            .idle_timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    }
}

async fn at(driver: &GitDriver, path: &Path) -> Arc<dyn RepoConnection> {
    connect(driver, &format!("ssh://git@host:2222{}", path.display())).await
}

#[tokio::test]
async fn ssh_is_called_with_the_key_and_nothing_of_the_user_s() {
    let root = Root::new();
    let repo = root.repository("it's");
    let commit = repo.commit_file("a", "1");
    let stand_in = StandIn::new("");
    let connection =
        connect(&stand_in.driver(), &format!("ssh://git@host:2222{}", repo.path.display())).await;
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "1");
    let notes = stand_in.notes();
    for line in [
        "BatchMode=yes",
        "SendEnv=GIT_PROTOCOL",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=\"/keys/known hosts\"",
        "IdentityAgent=none",
        "IdentitiesOnly=yes",
        "/keys/id",
        "2222",
        "git",
        "host",
        "GIT_PROTOCOL=version=2",
    ] {
        assert!(notes.lines().any(|noted| noted == line), "{line} is missing in {notes}");
    }
    assert!(!notes.contains("SSH_AUTH_SOCK"));
    assert!(!notes.contains("CARGO"), "the environment of this process is handed on");
}

#[tokio::test]
async fn a_key_out_of_the_secret_store_lies_in_a_private_file_and_goes_again() {
    let root = Root::new();
    let repo = root.repository("api");
    let commit = repo.commit_file("a", "1");
    let directory = tempfile::tempdir().unwrap();
    let shown = directory.path().join("shown");
    let show = format!(
        "while [ \"$1\" != -i ]; do shift; done; \
         {{ stat -c %a \"$2\"; cat \"$2\"; echo \"$2\"; }} > '{}'",
        shown.display()
    );
    let stand_in = StandIn::new(&show);
    let secret = SecretRef { name: "git".into(), key: "ssh".into() };
    let driver = stand_in.driver_with(GitCredentials::ssh_key(secret));
    let connection = at(&driver, &repo.path).await;
    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
    let shown = std::fs::read_to_string(shown).unwrap();
    let [mode, key, path] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    assert_eq!((mode, key), ("600", "-----KEY-----"));
    assert!(!Path::new(path).exists());
    assert!(!stand_in.notes().contains("KEY-----"), "the key stands in an argument");
}

#[tokio::test]
async fn a_server_that_drops_the_version_from_the_environment_is_told_it_in_the_command() {
    let root = Root::new();
    let repo = root.repository("api");
    let commit = repo.commit_file("a", "1");
    let stand_in = StandIn::new("unset GIT_PROTOCOL");
    let connection = at(&stand_in.driver(), &repo.path).await;
    assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "1");
    let tries = stand_in.notes().lines().filter(|line| line.starts_with("git-upload-pack")).count();
    assert_eq!(tries, 1, "it is remembered");
}

#[tokio::test]
async fn a_server_that_speaks_no_version_2_is_refused_by_name() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.commit_file("a", "1");
    let stand_in =
        StandIn::new("unset GIT_PROTOCOL; last=$(echo \"$last\" | sed 's/^env [^ ]* //')");
    let connection = at(&stand_in.driver(), &repo.path).await;
    let error = connection.resolve("refs/heads/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("AcceptEnv"), "{error}");
}

#[tokio::test]
async fn what_ssh_says_decides_the_kind_of_the_error() {
    for (says, status, expected) in [
        ("git@host: Permission denied (publickey).", 255, ErrorKind::Denied),
        ("Host key verification failed.", 255, ErrorKind::Denied),
        ("ssh: connect to host host port 22: Connection refused", 255, ErrorKind::Transient),
        (
            "ssh: Could not resolve hostname host: Name or service not known",
            255,
            ErrorKind::Transient,
        ),
        ("fatal: '/x' does not appear to be a git repository", 128, ErrorKind::NotFound),
        ("ERROR: Repository not found.", 1, ErrorKind::NotFound),
        ("something else", 3, ErrorKind::Transient),
    ] {
        let stand_in = StandIn::new(&format!("echo \"{says}\" >&2; exit {status}"));
        let connection = at(&stand_in.driver(), Path::new("/x")).await;
        let error = connection.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains("repository: ssh://git@host:2222/x"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_program_and_missing_credentials_are_told() {
    let driver = GitDriver::builder()
        .base("git@host:x")
        .credentials(GitCredentials::ssh_key_file("/keys/id"))
        .ssh_program("/nowhere/ssh")
        .build()
        .unwrap();
    let error = connect(&driver, "a").await.resolve("refs/heads/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("/nowhere/ssh"), "{error}");
    let driver = GitDriver::at("git@host:x").unwrap();
    let error = connect(&driver, "a").await.resolve("refs/heads/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_process_does_not_outlive_the_call_that_was_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening it to write waits for a reader; reading it then ends when the process is gone.
    let stand_in = StandIn::new(&format!("exec 9>'{}'; exec sleep 600", pipe.display()));
    let driver = stand_in.driver();
    let connection = at(&driver, Path::new("/x")).await;
    let started = tokio::task::spawn_blocking({
        let pipe = pipe.clone();
        move || std::fs::File::open(pipe).unwrap()
    });
    let call = tokio::spawn(async move { connection.resolve("refs/heads/main").await });
    let mut reader = started.await.unwrap();
    call.abort();
    let ended = tokio::task::spawn_blocking(move || {
        std::io::Read::read_to_end(&mut reader, &mut Vec::new()).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 0);
}

/// A real sshd on the loopback address.
struct Sshd {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    /// `None` where the program is not installed.
    fn start(accept_version: bool) -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|program| Path::new(program).exists())?;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status()
                .unwrap();
            assert!(made.success());
        }
        std::fs::copy(path("user.pub"), path("authorized")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host_key = std::fs::read_to_string(path("host.pub")).unwrap();
        std::fs::write(path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let accept = if accept_version { "AcceptEnv GIT_PROTOCOL\n" } else { "" };
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n{accept}",
            path("host"),
            path("authorized"),
        );
        std::fs::write(path("config"), config).unwrap();
        if !Path::new("/run/sshd").exists() {
            // Where it runs as root it wants this directory.
            let _ = std::fs::create_dir("/run/sshd");
        }
        let child = Command::new(program)
            .args(["-D", "-e", "-f", &path("config")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { directory, port, child };
        for _ in 0..1_000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(sshd);
            }
            std::thread::yield_now();
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sshd does not listen");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn driver(&self, key: &str) -> GitDriver {
        self.driver_knowing(key, "known")
    }

    fn driver_knowing(&self, key: &str, known: &str) -> GitDriver {
        GitDriver::builder()
            .base(format!("ssh://127.0.0.1:{}/", self.port))
            .allow(format!("ssh://127.0.0.1:{}", self.port))
            .credentials(GitCredentials::ssh_key_file(self.path(key)))
            .known_hosts(self.path(known))
            .build()
            .unwrap()
    }
}

#[tokio::test]
async fn a_real_sshd_serves_who_has_the_key() {
    for accept_version in [true, false] {
        let Some(sshd) = Sshd::start(accept_version) else {
            let why = "there is no sshd on this machine (Debian: openssh-server)";
            let may_skip = std::env::var("WORKFLOWS_TESTS_MAY_SKIP").as_deref() != Ok("0");
            assert!(may_skip, "{why}");
            // Around what captures the output of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
            return;
        };
        let root = Root::new();
        let repo = root.repository("api");
        let commit = repo.commit_file("a", "1");
        let name = repo.path.display().to_string();
        let name = name.trim_start_matches('/');

        let connection = connect(&sshd.driver("user"), name).await;
        assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), commit);
        let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
        assert_eq!(read.unwrap(), "1");

        let stranger = connect(&sshd.driver("other"), name).await;
        let error = stranger.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let fooled = connect(&sshd.driver_knowing("user", "authorized"), name).await;
        let error = fooled.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let missing = connect(&sshd.driver("user"), "nowhere/at/all").await;
        let error = missing.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}
