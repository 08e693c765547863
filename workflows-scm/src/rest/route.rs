//! Relative routes of a REST API.

use std::fmt;

use url::Url;
use workflows_core::{Error, Result};

pub(crate) fn is_dots(text: &str) -> bool {
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

    /// Adds a path of a repository or a ref, whose slashes stay.
    ///
    /// # Errors
    ///
    /// `Invalid` for an empty part, `.` and `..`, which would make it another route.
    pub(crate) fn below(mut self, path: &str) -> Result<Self> {
        if path.split('/').any(|part| part.is_empty() || is_dots(part)) {
            let shown: String = path.chars().take(200).collect();
            return Err(Error::invalid(
                "name a place in a repository",
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

    /// The route of GraphQL, which need not lie below the REST API's base.
    pub(crate) fn graphql() -> Self {
        Self::new(["graphql"])
    }

    pub(crate) fn is_graphql(&self) -> bool {
        self.path == "/graphql"
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
        let of = |place: &'static str| Route::new(["repos", "acme", "api.rs", place]);
        let route = of("check-runs").query("name", "a b&c=d");
        assert_eq!(
            route.at(&base()).as_str(),
            "https://git.example.com/api/v3/repos/acme/api.rs/check-runs?name=a+b%26c%3Dd"
        );
        let route = of("git").below("ref/heads/größe/1?x#y").unwrap();
        assert_eq!(
            route.at(&base()).path(),
            "/api/v3/repos/acme/api.rs/git/ref/heads/gr%C3%B6%C3%9Fe/1%3Fx%23y"
        );
        for hostile in ["../../../app", "a/../b", "a//b", "", "."] {
            assert!(of("contents").below(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn a_segment_is_no_step() {
        let route = Route::new(["users", "..", "app"]);
        assert_eq!(route.at(&base()).path(), "/api/v3/users/%252E%252E/app");
    }

    #[test]
    fn a_link_keeps_its_route_and_not_its_host() {
        let next = Route::from_link(&base(), "https://evil.example/api/v3/repos?page=2").unwrap();
        assert_eq!(next.at(&base()).as_str(), "https://git.example.com/api/v3/repos?page=2");
        assert_eq!(Route::from_link(&base(), "https://git.example.com/login"), None);
        assert_eq!(Route::from_link(&base(), "https://git.example.com/api/v3x"), None);
    }
}
