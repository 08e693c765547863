//! Where a repository is: git URLs in the forms that people write them.

use std::{fmt, path::PathBuf};

use url::Url;
use workflows_core::{Error, Result};

const OPERATION: &str = "read a repository address";

/// The address of a repository, checked and normalised, without credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A directory of this machine.
    File(PathBuf),
    /// `http://` or `https://`, without a slash at the end.
    Http(Url),
    /// `ssh://user@host:port/path` or `user@host:path`.
    Ssh(SshAddress),
}

/// The parts of an ssh address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshAddress {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// As the server gets it: absolute, or (of the scp-like form) relative to the home directory.
    pub(super) path: String,
}

impl Address {
    /// Reads an address. A relative path is refused, for what it means would depend on where the
    /// process was started.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(OPERATION, "the address is empty"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::invalid(
                OPERATION,
                "the address holds white space or control characters; write them percent-encoded",
            )
            .with("address", shown(text)));
        }
        if text.starts_with('/') {
            return Self::file(PathBuf::from(text));
        }
        if text.contains("://") {
            return Self::parse_url(text);
        }
        Self::parse_scp(text)
    }

    fn file(path: PathBuf) -> Result<Self> {
        if path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
            return Err(Error::invalid(OPERATION, "the path holds '..'")
                .with("address", shown(&path.to_string_lossy())));
        }
        // Collecting the components drops doubled slashes, `.` and a slash at the end.
        Ok(Self::File(path.components().collect()))
    }

    fn parse_url(text: &str) -> Result<Self> {
        let mut url = Url::parse(text).map_err(|error| {
            Error::invalid(OPERATION, "this is not a URL")
                .with("address", shown(text))
                .caused_by(error)
        })?;
        if url.password().is_some() || (url.scheme() != "ssh" && !url.username().is_empty()) {
            return Err(Error::invalid(
                OPERATION,
                "the URL holds a user name or password; keep credentials in the secret store and \
                 name them in the driver's configuration",
            )
            .with("host", url.host_str().unwrap_or_default()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::invalid(OPERATION, "a repository URL has no query and no fragment")
                .with("address", shown(text)));
        }
        match url.scheme() {
            "http" | "https" => {
                let path = url.path().trim_end_matches('/').to_owned();
                url.set_path(&path);
                Ok(Self::Http(url))
            }
            "ssh" => {
                let path = decoded(url.path());
                let path = match path.trim_end_matches('/') {
                    "" => "/".to_owned(),
                    path => path.to_owned(),
                };
                let host = url.host_str().unwrap_or_default();
                let user = Some(decoded(url.username())).filter(|user| !user.is_empty());
                // The standard lower-cases host names of http only.
                Self::ssh(user, &host.to_ascii_lowercase(), url.port(), path, text)
            }
            "file" => match url.to_file_path() {
                Ok(path) => Self::file(path),
                Err(()) => Err(Error::invalid(
                    OPERATION,
                    "a file URL has no host and an absolute path: file:///srv/git/a.git",
                )
                .with("address", shown(text))),
            },
            other => Err(Error::unsupported(
                OPERATION,
                format!("the scheme {other:?} is not spoken here; use https, http, ssh or file"),
            )
            .with("address", shown(text))),
        }
    }

    fn parse_scp(text: &str) -> Result<Self> {
        let refused = || {
            Error::invalid(
                OPERATION,
                "this is not a git address; write https://host/path, ssh://user@host/path, \
                 user@host:path or an absolute path",
            )
            .with("address", shown(text))
        };
        let (host, path) = text.split_once(':').ok_or_else(refused)?;
        if host.contains('/') {
            return Err(refused());
        }
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, host),
        };
        if user.as_deref().is_some_and(|user| user.is_empty() || user.contains([':', '@'])) {
            return Err(refused());
        }
        let path = path.trim_end_matches('/').to_owned();
        Self::ssh(user, &host.to_ascii_lowercase(), None, path, text)
    }

    /// `ssh` takes a leading dash for an option, and the remote shell gets the path in quotes.
    fn ssh(
        user: Option<String>,
        host: &str,
        port: Option<u16>,
        path: String,
        text: &str,
    ) -> Result<Self> {
        let plain = |part: &str| {
            !part.starts_with('-')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:%".contains(c))
        };
        let user_is_plain = user.as_deref().is_none_or(plain);
        let path_is_plain = !path.starts_with('-') && !path.chars().any(char::is_control);
        if host.is_empty() || !plain(host) || !user_is_plain || !path_is_plain {
            return Err(Error::invalid(
                OPERATION,
                "the user, the host or the path of the ssh address is missing or odd",
            )
            .with("address", shown(text)));
        }
        Ok(Self::Ssh(SshAddress { user, host: host.to_owned(), port, path }))
    }

    /// The repository of that name below this address.
    pub(super) fn join(&self, name: &str) -> Result<Self> {
        let odd =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.starts_with('-');
        if name.split('/').any(odd)
            || name.chars().any(|c| c.is_control() || c.is_whitespace() || "?#\\:'\"".contains(c))
        {
            return Err(Error::invalid(
                OPERATION,
                "a repository's name is a path below the connection's base, such as acme/api",
            )
            .with("name", shown(name)));
        }
        match self {
            Self::File(base) => Self::file(base.join(name)),
            Self::Http(base) => {
                let mut url = base.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(name.split('/'));
                }
                Ok(Self::Http(url))
            }
            Self::Ssh(base) => {
                let path = match base.path.as_str() {
                    "" => name.to_owned(),
                    path => format!("{}/{name}", path.trim_end_matches('/')),
                };
                Ok(Self::Ssh(SshAddress { path, ..base.clone() }))
            }
        }
    }

    /// Whether it names a host, and nothing there.
    pub(super) fn is_only_a_host(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Http(url) => url.path().trim_matches('/').is_empty(),
            Self::Ssh(ssh) => ssh.path.trim_matches('/').is_empty(),
        }
    }

    /// Whether the other address is this one or lies below it.
    pub(super) fn contains(&self, other: &Self) -> bool {
        if let (Self::File(outer), Self::File(inner)) = (self, other) {
            return inner.starts_with(outer);
        }
        let outer = self.to_string();
        let inner = other.to_string();
        inner.strip_prefix(&outer).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || outer.ends_with(['/', ':'])
        })
    }

    /// The host, for people.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::File(_) => "file system",
            Self::Http(url) => url.host_str().unwrap_or_default(),
            Self::Ssh(ssh) => &ssh.host,
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => match Url::from_file_path(path) {
                Ok(url) => write!(f, "{url}"),
                Err(()) => write!(f, "file://{}", path.display()),
            },
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Ssh(ssh) => {
                let absolute = ssh.path.starts_with('/');
                if absolute || ssh.port.is_some() {
                    f.write_str("ssh://")?;
                }
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&ssh.host)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                if !absolute {
                    f.write_str(":")?;
                }
                f.write_str(&ssh.path)
            }
        }
    }
}

/// Foreign text for an error: quoted, cut, and without what may be a password before an `@`.
fn shown(text: &str) -> String {
    let text = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://…{}", text.get(..scheme).unwrap_or(""), text.get(at..).unwrap_or(""))
        }
        _ => text.to_owned(),
    };
    let cut: String = text.chars().take(200).collect();
    format!("{cut:?}")
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        Address::parse(text).unwrap().to_string()
    }

    #[test]
    fn addresses_of_one_repository_have_one_normal_form() {
        assert_eq!(
            normal("HTTPS://Git.Example.com:443/acme/api/"),
            "https://git.example.com/acme/api"
        );
        assert_eq!(normal("ssh://git@Host/acme/api"), "ssh://git@host/acme/api");
        assert_eq!(normal("git@Host:/acme/api"), "ssh://git@host/acme/api");
        assert_eq!(normal("git@host:acme/api.git"), "git@host:acme/api.git");
        assert_eq!(normal("/srv//git/./a.git/"), "file:///srv/git/a.git");
        assert_eq!(normal("file:///srv/git/a.git"), "file:///srv/git/a.git");
        assert_eq!(normal("ssh://git@host:2222/a%20b"), "ssh://git@host:2222/a b");
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_password_is_shown() {
        for text in [
            "",
            "acme/api",
            "https://me:hunter2@host/a",
            "https://hunter2@host/a",
            "ssh://me:hunter2@host/a",
            "ssh://-oProxyCommand=x/a",
            "-oProxyCommand=hunter2:a",
            "git@-host:a",
            "git@host:-a",
            "git@ho$(x)st:a",
            "ftp://host/a",
            "ext::sh -c x",
            "https://host/a?x=hunter2",
            "/srv/../etc",
            "git@host:a\nb",
            "https://me:hunter2@ho st/a",
            "https://me:hunter2@host:port/a",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2@"), "{error}");
        }
    }

    #[test]
    fn a_name_stays_below_the_base() {
        let join = |base: &str, name: &str| {
            Address::parse(base).unwrap().join(name).map(|address| address.to_string())
        };
        assert_eq!(join("https://host/git/", "a/b").unwrap(), "https://host/git/a/b");
        assert_eq!(join("https://host", "a/b").unwrap(), "https://host/a/b");
        assert_eq!(join("git@host:team", "a").unwrap(), "git@host:team/a");
        assert_eq!(join("git@host:", "a/b").unwrap(), "git@host:a/b");
        assert_eq!(join("ssh://git@host:22", "a/b").unwrap(), "ssh://git@host:22/a/b");
        assert_eq!(join("/srv/git", "a/b.git").unwrap(), "file:///srv/git/a/b.git");
        for name in
            ["", "..", "a/../b", "/a", "a//b", "https://other/a", "a?b", "a#b", "a\\b", "-a"]
        {
            assert!(join("https://host", name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_address_contains_what_is_below_it_and_not_what_begins_alike() {
        let of = |text: &str| Address::parse(text).unwrap();
        assert!(of("https://host/acme").contains(&of("https://host/acme/api")));
        assert!(of("https://host").contains(&of("https://host/acme/api")));
        assert!(!of("https://host/acme").contains(&of("https://host/acme-evil/api")));
        assert!(!of("https://host").contains(&of("https://host.evil/a")));
        assert!(!of("https://host").contains(&of("http://host/a")));
        assert!(of("ssh://git@host").contains(&of("ssh://git@host/a")));
        assert!(of("git@host:").contains(&of("git@host:a")));
        assert!(!of("ssh://git@host").contains(&of("ssh://git@host.evil/a")));
        assert!(of("/srv/git").contains(&of("/srv/git/a")));
        assert!(!of("/srv/git").contains(&of("/srv/git2")));
    }
}
