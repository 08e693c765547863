//! Where people look at a repository.

use url::Url;
use workflows_core::{Error, Result};

/// Reads the address below which the pages of repositories are.
pub(super) fn read_base(text: &str) -> Result<Url> {
    let refuse = |why: &str| Error::invalid("read the address of pages", why.to_owned());
    let url = Url::parse(text).map_err(|error| refuse("it is no URL").caused_by(error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it holds a user name or password, which would show in every link"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it has a query or a fragment; pages are paths below it"));
    }
    Ok(url)
}

/// The page of a repository.
pub(super) fn of(base: &Url, repo: &str) -> String {
    let mut page = base.clone();
    if let Ok(mut path) = page.path_segments_mut() {
        path.pop_if_empty().extend(repo.split('/').filter(|part| !part.is_empty()));
    }
    page.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_name_below_the_base_whatever_is_in_it() {
        for (base, repo, expected) in [
            ("https://git.example.com", "acme/api", "https://git.example.com/acme/api"),
            (
                "https://git.example.com/cgit/",
                "acme/api.git",
                "https://git.example.com/cgit/acme/api.git",
            ),
            ("http://h:8080/a", "x y?z#q", "http://h:8080/a/x%20y%3Fz%23q"),
            ("https://h/a", "b//c/", "https://h/a/b/c"),
        ] {
            assert_eq!(of(&read_base(base).unwrap(), repo), expected);
        }
    }

    #[test]
    fn what_is_no_base_says_why() {
        for (text, expected) in [
            ("git.example.com", "it is no URL"),
            ("ssh://git@example.com/", "it must begin with https:// or http://"),
            ("javascript:alert(1)", "it must begin with https:// or http://"),
            ("https://u:p@example.com", "it holds a user name or password"),
            ("https://example.com/?p=", "it has a query or a fragment"),
        ] {
            let problem = read_base(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{text}: {problem}");
            assert!(!problem.contains("u:p"), "{problem}");
        }
    }
}
