//! A clone credential in the form in which git reads it.

use std::fmt::{self, Write};

use secrecy::{ExposeSecret, SecretString};

use crate::{CloneCredential, Error, Result};

/// Two files of a home directory that make `git clone` of one repository's host work, and that send
/// the token to no other host: git's own [`store`] helper, for the scheme and authority of the clone
/// address alone.
///
/// [`store`]: https://git-scm.com/docs/git-credential-store
#[derive(Clone)]
pub struct GitFiles {
    /// `.gitconfig`.
    pub config: String,
    /// `.git-credentials`.
    pub credentials: SecretString,
}

impl fmt::Debug for GitFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitFiles").field("config", &self.config).finish_non_exhaustive()
    }
}

impl CloneCredential {
    /// The credential as files for git.
    ///
    /// # Errors
    ///
    /// `Invalid` when the address is not one of http or https, or has a user in it.
    ///
    /// ```
    /// use workflows_core::CloneCredential;
    ///
    /// let credential = CloneCredential {
    ///     username: "x-access-token".into(),
    ///     token: "s3cret".into(),
    ///     expires_at: None,
    /// };
    /// let files = credential.git_files("https://git.example.com/acme/api.git").unwrap();
    /// assert!(files.config.starts_with("[credential \"https://git.example.com\"]"));
    /// assert!(credential.git_files("git@git.example.com:acme/api.git").is_err());
    /// ```
    pub fn git_files(&self, clone_url: &str) -> Result<GitFiles> {
        let (scheme, rest) = clone_url.split_once("://").unwrap_or(("", clone_url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
        let is_plain = !authority.is_empty() && authority.chars().all(plain);
        if !["https", "http"].contains(&scheme) || !is_plain {
            return Err(Error::invalid(
                "write a run's credential",
                "a credential needs the http or https address, without a user, that it is for",
            ));
        }
        Ok(GitFiles {
            config: format!(
                "[credential \"{scheme}://{authority}\"]\n\thelper = store\n\
                 [safe]\n\tdirectory = *\n"
            ),
            credentials: format!(
                "{scheme}://{}:{}@{authority}\n",
                percent_encode(self.username.as_bytes(), ""),
                percent_encode(self.token.expose_secret().as_bytes(), "")
            )
            .into(),
        })
    }
}

/// Encodes all but RFC 3986's unreserved characters and those of `also`.
pub(crate) fn percent_encode(bytes: &[u8], also: &str) -> String {
    bytes.iter().fold(String::new(), |mut encoded, &byte| {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(c) || also.contains(c) {
            encoded.push(c);
        } else {
            // Writing into a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
