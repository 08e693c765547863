//! Relative routes of GitHub's REST API.

use std::fmt;

use url::Url;
use workflows_core::{Error, Result};

/// An owner and a repository's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RepoPath {
    pub(crate) owner: String,
    pub(crate) name: String,
}

impl RepoPath {
    /// Reads `owner/name`. The characters are those that GitHub allows.
    pub(crate) fn parse(full_name: &str) -> Result<Self> {
        let refused = || {
            let shown: String = full_name.chars().take(150).collect();
            Error::invalid(
                "name a GitHub repository",
                "write owner/name, with letters, digits, '-', '_' and '.'",
            )
            .with("name", format!("{shown:?}"))
        };
        let is_name = |text: &str, most: usize| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !text.is_empty() && text.len() <= most && text.bytes().all(allowed)
        };
        let (owner, name) = full_name.split_once('/').ok_or_else(refused)?;
        if !is_name(owner, 100) || !is_name(name, 100) || [owner, name].iter().any(|n| is_dots(n)) {
            return Err(refused());
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// A route below the API's base, percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// Begins with `/`.
    path: String,
    query: Option<String>,
}

impl Route {
    /// A route of these segments. A segment is text: a `/` in it is encoded.
    pub(crate) fn new<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        Self { path: encoded(segments), query: None }
    }

    /// A route below `/repos/{owner}/{name}`.
    pub(crate) fn of_repo<'a>(
        repo: &'a RepoPath,
        segments: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let first = ["repos", &repo.owner, &repo.name];
        Self::new(first.into_iter().chain(segments))
    }

    /// Adds a path of a repository or a ref, whose slashes stay.
    ///
    /// # Errors
    ///
    /// `Invalid` for an empty part, `.` and `..`, which would make it another route.
    pub(crate) fn below(mut self, path: &str) -> Result<Self> {
        if path.split('/').any(|part| part.is_empty() || is_dots(part)) {
            let shown: String = path.chars().take(200).collect();
            return Err(Error::invalid(
                "name a place in a GitHub repository",
                "a path has no empty parts, no '.' and no '..'",
            )
            .with("path", format!("{shown:?}")));
        }
        self.path.push_str(&encoded(path.split('/')));
        Ok(self)
    }

    /// Adds a query parameter.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        let query = self.query.take().unwrap_or_default();
        let mut pairs = url::form_urlencoded::Serializer::new(query);
        pairs.append_pair(name, &value.to_string());
        self.query = Some(pairs.finish());
        self
    }

    /// The route that a `Link` header leads to: what is below the base, whatever host it names.
    /// `None` when it is not below the base.
    pub(crate) fn from_link(base: &Url, link: &str) -> Option<Self> {
        let url = base.join(link).ok()?;
        let path = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
        (path.starts_with('/'))
            .then(|| Self { path: path.to_owned(), query: url.query().map(ToOwned::to_owned) })
    }

    /// The whole address.
    pub(crate) fn at(&self, base: &Url) -> Url {
        let mut url = base.clone();
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), self.path));
        url.set_query(self.query.as_deref());
        url
    }

    /// The path, for errors.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// `/one/two`, each segment percent-encoded. A segment of one or two dots would be a step to another
/// route, also when it is encoded once; encoded twice it names nothing.
fn encoded<'a>(segments: impl IntoIterator<Item = &'a str>) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        if is_dots(segment) {
            path.push_str(&segment.replace('.', "%252E"));
            continue;
        }
        for byte in segment.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    path.push(char::from(byte));
                }
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://git.example.com/api/v3").unwrap()
    }

    #[test]
    fn segments_stay_segments() {
        let repo = RepoPath::parse("acme/api.rs").unwrap();
        let route = Route::of_repo(&repo, ["check-runs"]).query("name", "a b&c=d");
        assert_eq!(
            route.at(&base()).as_str(),
            "https://git.example.com/api/v3/repos/acme/api.rs/check-runs?name=a+b%26c%3Dd"
        );
        let route = Route::of_repo(&repo, ["git", "ref"]).below("heads/größe/1?x#y").unwrap();
        assert_eq!(
            route.at(&base()).path(),
            "/api/v3/repos/acme/api.rs/git/ref/heads/gr%C3%B6%C3%9Fe/1%3Fx%23y"
        );
        for hostile in ["../../../app", "a/../b", "a//b", "", "."] {
            assert!(Route::of_repo(&repo, ["contents"]).below(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn a_segment_is_no_step() {
        let route = Route::new(["users", "..", "app"]);
        assert_eq!(route.at(&base()).path(), "/api/v3/users/%252E%252E/app");
    }

    #[test]
    fn names_are_checked() {
        for wrong in ["acme", "acme/", "/api", "a/b/c", "a b/c", "acme/..", "../api", "ä/b"] {
            assert!(RepoPath::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_link_keeps_its_route_and_not_its_host() {
        let next = Route::from_link(&base(), "https://evil.example/api/v3/repos?page=2").unwrap();
        assert_eq!(next.at(&base()).as_str(), "https://git.example.com/api/v3/repos?page=2");
        assert_eq!(Route::from_link(&base(), "https://git.example.com/login"), None);
        assert_eq!(Route::from_link(&base(), "https://git.example.com/api/v3x"), None);
    }
}
