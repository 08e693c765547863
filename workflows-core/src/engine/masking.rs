//! Keeping secrets out of what is shown of a log.
//!
//! Two ways find them. A secret that a run was given is known by its fingerprint, which the run
//! keeps, so that it is found also by an engine that was started since. And much of what must not be
//! seen looks like what it is: the tokens of the large hosts have prefixes for that very purpose, an
//! address may hold a user's password, a header a credential, a key says where it begins.

use std::sync::LazyLock;

use data_encoding::{BASE64, HEXLOWER};
use regex::{Captures, Regex};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::{CloneCredential, git_files::percent_encode, run::SecretFingerprint};

const MASK: &str = "***";
/// Shorter values could be guessed from their digest, and would be found where they are no secret.
const SHORTEST: usize = 16;

/// What looks like a secret, and what takes its place. Sources: the token formats that GitHub,
/// GitLab, Slack, npm and AWS publish for secret scanners; RFC 3986 (user information), RFC 7519.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\bgh[pousr]_[A-Za-z0-9_.\-]{16,}", MASK),
        (r"\bgithub_pat_[A-Za-z0-9_]{16,}", MASK),
        (r"\bgl[a-z]{2,6}-[A-Za-z0-9_.\-]{16,}", MASK),
        (r"\bxox[a-z]-[A-Za-z0-9\-]{8,}", MASK),
        (r"\bxapp-[A-Za-z0-9\-]{8,}", MASK),
        (r"\bnpm_[A-Za-z0-9]{20,}", MASK),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK),
        (r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*", MASK),
        (r"(?i)\b(authorization\s*[:=]\s*)(basic|bearer|token)\s+\S+", "${1}${2} ***"),
    ]
    .into_iter()
    .filter_map(|(pattern, by)| Some((Regex::new(pattern).ok()?, by)))
    .collect()
});

static USER_INFORMATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b([a-z][a-z0-9+.\-]*://)([^\s/?#]+)@").ok());

/// By what the parts of a credential are found, in the forms in which tools write them: as it is,
/// as a part of an address, and as an authorization header.
pub(crate) fn fingerprints(credential: &CloneCredential) -> Vec<SecretFingerprint> {
    let token = credential.token.expose_secret();
    let encoded = percent_encode(token.as_bytes(), "");
    let header = BASE64.encode(format!("{}:{token}", credential.username).as_bytes());
    let mut forms = vec![token.to_owned(), encoded, header];
    forms.dedup();
    forms.iter().filter_map(|form| fingerprint(form)).collect()
}

fn fingerprint(secret: &str) -> Option<SecretFingerprint> {
    let one_word = secret.len() >= SHORTEST && !secret.contains(char::is_whitespace);
    let length = u32::try_from(secret.len()).ok().filter(|_| one_word)?;
    Some(SecretFingerprint { length, sha256: digest(secret.as_bytes()).into() })
}

fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Replaces secrets in the lines of one text, in order.
#[derive(Debug)]
pub(crate) struct Masker<'a> {
    known: &'a [SecretFingerprint],
    in_a_key: bool,
}

impl<'a> Masker<'a> {
    pub(crate) fn new(known: &'a [SecretFingerprint]) -> Self {
        Self { known, in_a_key: false }
    }

    /// Takes note of a line that is not shown: a key may begin in it.
    pub(crate) fn pass(&mut self, line: &str) {
        let _ = self.is_of_a_key(line);
    }

    /// The next line with what is secret replaced.
    pub(crate) fn line(&mut self, line: &str) -> String {
        if self.is_of_a_key(line) {
            return MASK.to_owned();
        }
        let mut text: String =
            line.split_inclusive(char::is_whitespace).map(|word| self.word(word)).collect();
        for (pattern, by) in PATTERNS.iter() {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, *by).into_owned();
            }
        }
        match &*USER_INFORMATION {
            Some(pattern) if text.contains("://") => {
                pattern.replace_all(&text, without_user_information).into_owned()
            }
            _ => text,
        }
    }

    fn is_of_a_key(&mut self, line: &str) -> bool {
        let begins = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY");
        let is_of_it = begins || self.in_a_key;
        if is_of_it {
            self.in_a_key = !line.contains("-----END ");
        }
        is_of_it
    }

    /// A word with the known secrets in it replaced. No secret that has a fingerprint holds white
    /// space.
    fn word(&self, word: &str) -> String {
        let mut masked = String::new();
        let mut rest = word;
        while let Some((at, length)) = self.first_known(rest) {
            masked.push_str(&rest[..at]);
            masked.push_str(MASK);
            rest = &rest[at + length..];
        }
        masked.push_str(rest);
        masked
    }

    fn first_known(&self, word: &str) -> Option<(usize, usize)> {
        let found = self.known.iter().filter_map(|secret| {
            let length = secret.length as usize;
            let last = word.len().checked_sub(length)?;
            let at = (0..=last).find(|at| {
                word.get(*at..*at + length)
                    .is_some_and(|part| digest(part.as_bytes()) == *secret.sha256)
            })?;
            Some((at, length))
        });
        found.min()
    }
}

/// `git` and its like are no secret: they say how to connect.
fn without_user_information(found: &Captures<'_>) -> String {
    let (scheme, user) = (&found[1], &found[2]);
    let is_plain_user = scheme.eq_ignore_ascii_case("ssh://") && !user.contains(':');
    if is_plain_user { found[0].to_owned() } else { format!("{scheme}{MASK}@") }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn mask(line: &str) -> String {
        Masker::new(&[]).line(line)
    }

    #[test]
    fn every_pattern_is_a_pattern() {
        assert_eq!(PATTERNS.len(), 9);
        assert!(USER_INFORMATION.is_some());
    }

    #[test]
    fn what_looks_like_a_secret_is_replaced_and_the_rest_stays() {
        for (line, masked) in [
            ("token ghp_0123456789abcdefABCDEF0123456789abcd!", "token ***!"),
            ("ghs_12345_eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl end", "*** end"),
            ("x=github_pat_11AAAAAAA0aaaaaaaaaaaaaa_bbbbbbbbbbb", "x=***"),
            ("glpat-abcdefghij0123456789 glrt-abcdefghij0123456789", "*** ***"),
            ("xoxb-1234567890-abcdef", "***"),
            ("AKIAIOSFODNN7EXAMPLE", "***"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.abc", "jwt ***"),
            ("curl -H 'Authorization: Bearer abc'", "curl -H 'Authorization: Bearer ***"),
            ("https://bob:hunter2@example.com/x", "https://***@example.com/x"),
            ("https://hunter2@example.com/x", "https://***@example.com/x"),
            ("https://bob:p@ss@example.com/x", "https://***@example.com/x"),
            ("ssh://git@example.com/x", "ssh://git@example.com/x"),
            ("https://example.com/a@b?c=d@e", "https://example.com/a@b?c=d@e"),
            ("a highp_level_name ghp_short is kept", "a highp_level_name ghp_short is kept"),
        ] {
            assert_eq!(mask(line), masked, "{line}");
        }
    }

    #[test]
    fn what_a_run_was_given_is_found_in_every_form_and_kept_in_none() {
        let token = "never/seen+before=0123456789";
        let credential = CloneCredential {
            username: "x-access-token".into(),
            token: SecretString::from(token.to_owned()),
            expires_at: None,
        };
        let known = fingerprints(&credential);
        assert_eq!(known.len(), 3);
        let kept = serde_json::to_string(&known).unwrap();
        assert!(!kept.contains("never") && !kept.contains("0123456789"), "{kept}");

        let header = BASE64.encode(format!("x-access-token:{token}").as_bytes());
        let lines = [
            format!("é\"{token}\"{token} and {token}"),
            format!("basic {header}."),
            "never%2Fseen%2Bbefore%3D0123456789/".to_owned(),
            format!("{}x", &token[1..]),
        ];
        let mut masker = Masker::new(&known);
        let masked: Vec<String> = lines.iter().map(|line| masker.line(line)).collect();
        assert_eq!(masked[0], "é\"***\"*** and ***");
        assert_eq!(masked[1], "basic ***.");
        assert_eq!(masked[2], "***/");
        assert_eq!(masked[3], lines[3], "a part of it is another text");
    }

    #[test]
    fn no_fingerprint_is_made_of_what_could_be_guessed() {
        assert_eq!(fingerprint("hunter2"), None);
        assert_eq!(fingerprint("correct horse battery staple"), None);
    }

    #[test]
    fn a_private_key_is_left_out_as_a_whole() {
        let mut masker = Masker::new(&[]);
        let lines = [
            "before",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ",
            "-----END OPENSSH PRIVATE KEY-----",
            "after",
        ];
        let masked: Vec<String> = lines.iter().map(|line| masker.line(line)).collect();
        assert_eq!(masked, ["before", "***", "***", "***", "after"]);
    }
}
