//! Git over the system's `ssh` program.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};
use workflows_core::{Error, ErrorKind, Result};

use super::{
    REACH, Settings,
    address::SshAddress,
    credentials::{Access, Kind},
    pkt::{PacketReader, put_flush},
    protocol::{Advertisement, server_error},
};
use crate::printable::printable;

/// Of what the program says on its error stream, so much is kept.
const KEPT_OF_STDERR: u64 = 4_096;

/// How `ssh` is called.
#[derive(Debug, Clone)]
pub(super) struct SshOptions {
    pub(super) program: PathBuf,
    pub(super) known_hosts: Option<PathBuf>,
}

/// One repository over ssh. Each request is a process.
#[derive(Debug)]
pub(super) struct Ssh {
    address: SshAddress,
    access: Access,
    options: SshOptions,
    connect_timeout: Duration,
    idle: Duration,
    /// Whether the server does not take the protocol's version from the environment, but from the
    /// command line.
    version_in_command: AtomicBool,
}

impl Ssh {
    pub(super) fn new(address: SshAddress, access: Access, settings: &Settings) -> Self {
        Self {
            address,
            access,
            options: settings.ssh.clone(),
            connect_timeout: settings.connect_timeout,
            idle: settings.idle_timeout,
            version_in_command: AtomicBool::new(false),
        }
    }

    /// Sends a request made for what the server offers, and returns the answer.
    pub(super) async fn exchange(
        &self,
        request: impl FnOnce(&Advertisement) -> Result<Vec<u8>>,
    ) -> Result<(PacketReader, Advertisement)> {
        let (mut stdin, packets, advertisement) = self.begin().await?;
        let mut body = request(&advertisement)?;
        put_flush(&mut body);
        let sent = tokio::time::timeout(self.idle, async {
            stdin.write_all(&body).await?;
            stdin.shutdown().await
        });
        match sent.await {
            // A server that hangs up says why in its answer or on its error stream.
            Ok(Ok(()) | Err(_)) => Ok((packets, advertisement)),
            Err(_) => Err(Error::transient(REACH, "the server does not take the request")
                .with("host", &self.address.host)),
        }
    }

    async fn begin(&self) -> Result<(tokio::process::ChildStdin, PacketReader, Advertisement)> {
        let in_command = self.version_in_command.load(Ordering::Relaxed);
        let (stdin, mut packets) = self.spawn(in_command).await?;
        match Advertisement::read(&mut packets).await {
            Ok(advertisement) => Ok((stdin, packets, advertisement)),
            // sshd drops GIT_PROTOCOL unless told to accept it. Where the account has a shell, the
            // command can say it.
            Err(error) if error.kind() == ErrorKind::Unsupported && !in_command => {
                drop((stdin, packets));
                let (stdin, mut packets) = self.spawn(true).await?;
                let Ok(advertisement) = Advertisement::read(&mut packets).await else {
                    return Err(error.with("host", &self.address.host));
                };
                self.version_in_command.store(true, Ordering::Relaxed);
                Ok((stdin, packets, advertisement))
            }
            Err(error) => Err(error.with("host", &self.address.host)),
        }
    }

    async fn spawn(
        &self,
        version_in_command: bool,
    ) -> Result<(tokio::process::ChildStdin, PacketReader)> {
        let mut command = Command::new(&self.options.program);
        let key = self.identify(&mut command).await?;
        // The rest of this process's environment is none of its business.
        let mut kept = vec!["PATH", "HOME", "USER", "LOGNAME", "TMPDIR"];
        if self.access.credentials == Some(Kind::SshOfTheUser) {
            kept.push("SSH_AUTH_SOCK");
        }
        command.env_clear();
        command.envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("GIT_PROTOCOL", "version=2");
        command.args(["-T", "-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL"]);
        command.args(["-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes"]);
        let seconds = self.connect_timeout.as_secs().max(1);
        command.arg("-o").arg(format!("ConnectTimeout={seconds}"));
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]);
        command.args(["-o", "StrictHostKeyChecking=yes"]);
        if let Some(file) = &self.options.known_hosts {
            command.arg("-o").arg(option_with_path("UserKnownHostsFile", file));
            command.args(["-o", "GlobalKnownHostsFile=/dev/null"]);
        }
        if let Some(port) = self.address.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.address.user {
            command.arg("-l").arg(user);
        }
        let host = self.address.host.trim_start_matches('[').trim_end_matches(']');
        command.arg("--").arg(host);
        let set_version = if version_in_command { "env GIT_PROTOCOL=version=2 " } else { "" };
        command.arg(format!("{set_version}git-upload-pack {}", quoted(&self.address.path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);

        let mut child = command.spawn().map_err(|error| self.cannot_start(error))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::transient(REACH, "the pipes to ssh are missing"));
        };
        let stderr = tokio::spawn(async move {
            let mut kept = Vec::new();
            let mut stderr = stderr.take(KEPT_OF_STDERR);
            let _ = stderr.read_to_end(&mut kept).await;
            // What follows is read and dropped, so that the program does not wait for us.
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&kept).into_owned()
        });
        let answer = Answer { child, stdout, stderr, _key: key };
        Ok((stdin, PacketReader::new(answer.into_stream().boxed(), self.idle)))
    }

    /// Tells `ssh` who we are. The file that is returned must live as long as the process.
    async fn identify(&self, command: &mut Command) -> Result<Option<NamedTempFile>> {
        let only = |command: &mut Command, file: &Path| {
            command.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
            command.arg("-i").arg(file);
        };
        match &self.access.credentials {
            Some(Kind::SshOfTheUser) => Ok(None),
            Some(Kind::SshKeyFile { path }) => {
                only(command, path);
                Ok(None)
            }
            Some(Kind::SshKey { key }) => {
                let key = self.access.secret(key).await?;
                let file = tokio::task::spawn_blocking(move || {
                    // Created readable by this user alone.
                    let mut file = NamedTempFile::new()?;
                    file.write_all(key.expose_secret().trim_end().as_bytes())?;
                    file.write_all(b"\n")?;
                    file.flush()?;
                    std::io::Result::Ok(file)
                });
                let file =
                    file.await.map_err(std::io::Error::other).and_then(|file| file).map_err(
                        |error| {
                            Error::transient(REACH, "the private key cannot be written for ssh")
                                .caused_by(error)
                        },
                    )?;
                only(command, file.path());
                Ok(Some(file))
            }
            Some(Kind::Basic { .. } | Kind::Bearer { .. }) | None => Err(Error::invalid(
                REACH,
                "the driver has no credentials for ssh; give it a key, or say that it may use \
                 the user's own",
            )
            .with("host", &self.address.host)),
        }
    }

    fn cannot_start(&self, error: std::io::Error) -> Error {
        let program = self.options.program.display();
        let failure = if error.kind() == std::io::ErrorKind::NotFound {
            Error::unsupported(
                REACH,
                "the program for ssh is not there; install an OpenSSH client, or use https",
            )
        } else {
            Error::transient(REACH, "the program for ssh cannot be started")
        };
        failure.with("program", program).caused_by(error)
    }
}

/// What a process says, until it has said it all.
struct Answer {
    child: Child,
    stdout: ChildStdout,
    stderr: JoinHandle<String>,
    _key: Option<NamedTempFile>,
}

impl Answer {
    /// Its bytes. When the process fails, the last item says why.
    fn into_stream(self) -> impl futures::Stream<Item = Result<Bytes>> + Send {
        stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            match answer.stdout.read_buf(&mut buffer).await {
                Ok(0) => Some((Err(answer.failure().await?), None)),
                Ok(_) => Some((Ok(buffer.freeze()), Some(answer))),
                Err(error) => {
                    let error = Error::transient(REACH, "ssh cannot be read").caused_by(error);
                    Some((Err(error), None))
                }
            }
        })
    }

    async fn failure(mut self) -> Option<Error> {
        let status = match self.child.wait().await {
            Ok(status) if status.success() => return None,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = self.stderr.await.unwrap_or_default();
        let lower = said.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let (kind, what) = if says(&["host key verification failed", "host key is known"]) {
            (
                ErrorKind::Denied,
                "the host's key is not the known one; put the right one into the known-hosts file",
            )
        } else if says(&["permission denied", "too many authentication failures"]) {
            (ErrorKind::Denied, "the host does not accept the key")
        } else if says(&[
            "could not resolve",
            "connection refused",
            "connection timed out",
            "connection closed",
            "connection reset",
            "no route to host",
            "unreachable",
        ]) {
            (ErrorKind::Transient, "the host cannot be reached")
        } else {
            return Some(server_error(&said).with("status", status));
        };
        Some(Error::new(kind, REACH, what).with("ssh", printable(&said)).with("status", status))
    }
}

/// The path in single quotes, for the shell at the other end.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// An option whose value is a path, in the quotes that `ssh` wants around white space.
fn option_with_path(name: &str, path: &Path) -> String {
    format!("{name}=\"{}\"", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(quoted("a'; rm -rf ~ #"), r"'a'\''; rm -rf ~ #'");
    }
}
