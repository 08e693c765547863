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
    programs: PathBuf,
    durability: Durability,
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
        Self::start_in(|directory, owner| {
            // Nobody else of this machine is to get in, and what a password may hold is to be tested.
            let password = format!("p@ss:/?#[]'\"\\ {}", directory.display());
            let secret = directory.join("password");
            std::fs::write(&secret, &password).map_err(failed("the password's file"))?;
            give(&secret, owner)?;
            let mut initdb = command(&programs.join("initdb"), owner, directory);
            initdb
                .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
                .args(["--locale=C", "--no-sync", "--no-instructions"])
                .arg("--pwfile")
                .arg(&secret)
                .arg("--pgdata");
            made_by(initdb, directory)?;
            Ok((programs.to_path_buf(), durability, password))
        })
    }

    /// Another server that follows this one, and of which everything can be read: a hot standby. From
    /// then on this one answers a commit when the other has it, too.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn standby(&self) -> Self {
        let standby = Self::start_in(|directory, owner| {
            let mut copy = command(&self.programs.join("pg_basebackup"), owner, directory);
            copy.env("PGPASSWORD", &self.password)
                .args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast"])
                .args(["--wal-method=stream", "--no-sync", "--write-recovery-conf"])
                .arg(format!("--port={}", self.port))
                .arg("--pgdata");
            made_by(copy, directory)?;
            Ok((self.programs.clone(), self.durability, self.password.clone()))
        });
        standby.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes the files in a directory of their own, and starts the server.
    fn start_in(
        make: impl FnOnce(&Path, Option<Owner>) -> Result<(PathBuf, Durability, String), String>,
    ) -> Result<Self, String> {
        let owner = owner()?;
        let directory = tempfile::Builder::new()
            .prefix("workflows-postgres-")
            .tempdir()
            .map_err(failed("a directory for Postgres"))?;
        give(directory.path(), owner)?;
        let (programs, durability, password) = make(directory.path(), owner)?;
        let mut last = String::new();
        // Somebody else may take the port between its choice and its use.
        for _ in 0..5 {
            let port = free_port().map_err(failed("find a port"))?;
            let watch = watch(&programs, directory.path(), port, durability, owner)?;
            let server = Self {
                port,
                password: password.clone(),
                programs: programs.clone(),
                durability,
                directory: directory.path().to_path_buf(),
                owner,
                watch: Mutex::new(watch),
            };
            match server.wait_until_ready() {
                Ok(()) => {
                    // The shell removes it.
                    let _ = directory.keep();
                    return Ok(server);
                }
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
            .map_err(|error| error.to_string())
            .and_then(|()| give(&path, self.owner));
        kept.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Makes a directory that belongs to the server somewhere else, such as on a small disk.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn directory_in(&self, place: &Path) -> PathBuf {
        let path = place.join(format!("postgres-{}", self.port));
        let made = std::fs::create_dir(&path).map_err(|error| error.to_string());
        let given = made.and_then(|()| give(&path, self.owner));
        given.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn give(path: &Path, owner: Option<Owner>) -> Result<(), String> {
    match owner {
        Some(owner) => {
            chown(path, Some(owner.user), Some(owner.group)).map_err(failed("give a file away"))
        }
        None => Ok(()),
    }
}

/// Where a server has its data.
fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Lets a program, whose last argument this is, make the data.
fn made_by(mut program: Command, directory: &Path) -> Result<(), String> {
    let made = program.arg(data(directory)).output().map_err(failed("make the server's data"))?;
    if made.status.success() {
        return Ok(());
    }
    Err(format!("the server's data: {}", String::from_utf8_lossy(&made.stderr)))
}

fn watch(
    programs: &Path,
    directory: &Path,
    port: u16,
    durability: Durability,
    owner: Option<Owner>,
) -> Result<Watch, String> {
    let mut shell = command(Path::new("/bin/sh"), owner, directory);
    shell.args(["-c", WATCH, "watch"]).arg(directory).arg(programs.join("postgres"));
    shell.arg("-D").arg(data(directory)).arg("-p").arg(port.to_string());
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
