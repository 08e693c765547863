//! A server with its files.

use std::{
    fmt::Write as _,
    fs::Permissions,
    io::{BufRead, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a server may take to start, which is a recovery after a crash, too.
const START: Duration = Duration::from_secs(60);

/// What a server does for the sake of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: for suites that look at what is answered, and never at a server that died.
    None,
    /// What a server in production does.
    Full,
}

/// The shell that watches over the server. It reads what to do from its input and says when that is
/// done. When the input ends, because whoever started it ended, so does everything.
const WATCH: &str = r#"
directory=$1; shift
start() { "$@" >>"$directory/log" 2>&1 </dev/null & server=$!; }
trap '' INT TERM HUP
start "$@"
while read -r word; do
  case $word in
    stop) kill -INT "$server"; wait "$server" ;;
    crash) kill -QUIT "$server"; wait "$server" ;;
    freeze) kill -STOP "$server" ;;
    thaw) kill -CONT "$server" ;;
    start) start "$@" ;;
  esac
  echo done
done
kill -CONT "$server"
kill -QUIT "$server"
wait "$server"
rm -rf "$directory"
"#;

/// A server of which a test may do with what it likes.
#[derive(Debug)]
pub struct Server {
    port: u16,
    password: String,
    directory: PathBuf,
    owner: Option<Owner>,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Watch {
    shell: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Who runs the server: `initdb` refuses to be run by root.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Server {
    pub(crate) fn start_with(programs: &Path, durability: Durability) -> Result<Self, String> {
        let owner = owner()?;
        let directory = tempfile::Builder::new()
            .prefix("workflows-postgres-")
            .tempdir()
            .map_err(|error| format!("no directory for Postgres: {error}"))?
            .keep();
        let started = Self::start_in(&directory, programs, durability, owner);
        if started.is_err() {
            let _ = std::fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(
        directory: &Path,
        programs: &Path,
        durability: Durability,
        owner: Option<Owner>,
    ) -> Result<Self, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        // Nobody else of this machine is to get in, and what a password may hold is to be tested.
        let password = format!("p@ss:/?#[]'\"\\ {}", directory.display());
        let secret = directory.join("password");
        std::fs::write(&secret, &password).map_err(|error| failed("the password's file", error))?;
        if let Some(owner) = owner {
            for path in [directory, &secret] {
                chown(path, Some(owner.user), Some(owner.group))
                    .map_err(|error| failed("give the directory away", error))?;
            }
        }
        let data = directory.join("data");
        let mut initdb = command(&programs.join("initdb"), owner, directory);
        initdb
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--no-instructions"])
            .arg("--pwfile")
            .arg(&secret);
        let made = initdb.output().map_err(|error| failed("start initdb", error))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let mut last = String::new();
        // Somebody else may take the port between its choice and its use.
        for _ in 0..5 {
            let port = free_port().map_err(|error| failed("find a port", error))?;
            let watch = watch(programs, directory, &data, port, durability, owner)?;
            let server = Self {
                port,
                password: password.clone(),
                directory: directory.to_path_buf(),
                owner,
                watch: Mutex::new(watch),
            };
            match server.wait_until_ready() {
                Ok(()) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The address, with a user that may do everything.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same at another port of this machine: of a proxy in between.
    pub fn url_at(&self, port: u16) -> String {
        let mut password = String::new();
        for byte in self.password.bytes() {
            let _ = write!(password, "%{byte:02X}");
        }
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    /// The user's password, for tests that look for it where it must not be.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The port of this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server in order: sessions end, and what is in memory is written.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Ends the server at once, as a crash does: it recovers from its log when it starts again.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn crash(&self) {
        self.tell("crash");
    }

    /// Starts the server again, and waits until it can be asked.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(&self) {
        self.tell("start");
        if let Err(error) = self.wait_until_ready() {
            panic!("{error}");
        }
    }

    /// Puts a file where the server, and nobody else, can read it; returns its path.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn keep_file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.directory.join(name);
        let kept = std::fs::write(&path, contents)
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o600)))
            .and_then(|()| match self.owner {
                Some(owner) => chown(&path, Some(owner.user), Some(owner.group)),
                None => Ok(()),
            });
        kept.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn tell(&self, word: &str) {
        let mut watch = self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = watch.words.as_mut().map(|words| writeln!(words, "{word}"));
        assert!(matches!(told, Some(Ok(()))), "nobody watches over Postgres any more");
        let mut answer = String::new();
        let heard = watch.answers.read_line(&mut answer);
        assert!(matches!(heard, Ok(1..)), "Postgres did not {word}: {}", self.log());
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < START {
            if self.is_ready() {
                return Ok(());
            }
            let log = self.log();
            if log.contains("could not bind") || log.contains("could not create any TCP/IP") {
                return Err(log);
            }
            sleep(Duration::from_millis(20));
        }
        Err(format!("Postgres did not start: {}", self.log()))
    }

    /// Whether it answers a start-up message with a wish for a password, and not with an error: it
    /// may be starting still.
    fn is_ready(&self) -> bool {
        use std::io::Read as _;
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        // Length, protocol 3.0, parameters, each with a NUL behind it, and a last NUL.
        let parameters = b"user\0postgres\0\0";
        let length = u32::try_from(parameters.len() + 8).unwrap_or_default();
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&196_608_u32.to_be_bytes());
        message.extend_from_slice(parameters);
        let mut answer = [0];
        stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
            && stream.write_all(&message).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == [b'R']
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut watch = self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(watch.words.take());
        let _ = watch.shell.wait();
    }
}

fn watch(
    programs: &Path,
    directory: &Path,
    data: &Path,
    port: u16,
    durability: Durability,
    owner: Option<Owner>,
) -> Result<Watch, String> {
    let mut shell = command(Path::new("/bin/sh"), owner, directory);
    shell.args(["-c", WATCH, "watch"]).arg(directory).arg(programs.join("postgres"));
    shell.arg("-D").arg(data).arg("-p").arg(port.to_string());
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=64MB",
        "log_min_messages=warning",
        "log_statement=none",
        "log_min_error_statement=panic",
    ];
    if durability == Durability::None {
        settings.extend(["fsync=off", "full_page_writes=off", "wal_level=minimal"]);
        settings.extend(["max_wal_senders=0", "checkpoint_timeout=1h", "max_wal_size=4GB"]);
    }
    for setting in settings {
        shell.args(["-c", setting]);
    }
    // Of a group of its own, so that a ^C does not end it before its server.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = shell.spawn().map_err(|error| format!("start Postgres: {error}"))?;
    let words = shell.stdin.take();
    let answers = shell.stdout.take().ok_or("the shell has no output")?;
    Ok(Watch { shell, words, answers: BufReader::new(answers) })
}

fn command(program: &Path, owner: Option<Owner>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    // What the environment says of other servers is not for this one.
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(directory);
    if let Some(owner) = owner {
        command.uid(owner.user).gid(owner.group);
    }
    command
}

/// Somebody else when this is root; `None` when it is not.
fn owner() -> Result<Option<Owner>, String> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let accounts = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| format!("/etc/passwd, to find a user for Postgres: {error}"))?;
    let found = ["postgres", "nobody"].into_iter().find_map(|name| {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (account, _, user, group) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let owner = Owner { user: user.parse().ok()?, group: group.parse().ok()? };
            (account == name).then_some(owner)
        })
    });
    found.map(Some).ok_or_else(|| "there is no user `postgres` or `nobody` to run Postgres".into())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
