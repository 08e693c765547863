//! Signatures of the Standard Webhooks specification, and secret tokens that are sent along.

use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use workflows_core::{Error, Result, Verified};

const OPERATION: &str = "verify webhook";
/// What a signing token begins with.
const PREFIX: &str = "whsec_";
/// A delivery that was signed longer ago, or is from further in the future, is refused: it may be an old
/// one that somebody sends again.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// The headers of a signature
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardSignature<'a> {
    /// `webhook-id`.
    pub id: Option<&'a str>,
    /// `webhook-timestamp`: seconds since 1970.
    pub timestamp: Option<&'a str>,
    /// `webhook-signature`: `v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in Base64; several are
    /// separated by spaces.
    pub signature: Option<&'a str>,
}

/// Whether a secret signs, rather than being sent along.
pub(crate) fn is_signing_token(secret: &SecretString) -> bool {
    secret.expose_secret().starts_with(PREFIX)
}

/// Checks that one of the secrets made the signature of a body, or was sent along with it, before a byte
/// of it is parsed. A secret that begins with `whsec_` signs; any other is a token that is compared as it
/// is, which proves less: who sees one delivery can write others. All secrets are tried, in time that
/// does not depend on which one fits.
///
/// # Errors
///
/// `Denied` when there is no secret or an empty one, when the signature or the token is missing or made
/// with another secret, or of another body, and when the signature is older than five minutes.
pub fn verify_standard(
    body: Bytes,
    signature: StandardSignature<'_>,
    token: Option<&str>,
    secrets: &[SecretString],
    now: Timestamp,
) -> Result<Verified> {
    Verified::check(body, |raw| {
        if secrets.is_empty() {
            return Err(denied("no secret is configured for this webhook; set one"));
        }
        if secrets.iter().any(|secret| secret.expose_secret().is_empty()) {
            return Err(denied("a secret of this webhook is empty; set another"));
        }
        let (signing, sent): (Vec<_>, Vec<_>) =
            secrets.iter().partition(|secret| is_signing_token(secret));
        let by_token = token.map(|token| {
            let mut fits = Choice::from(0);
            for secret in &sent {
                fits |= secret.expose_secret().as_bytes().ct_eq(token.as_bytes());
            }
            bool::from(fits)
        });
        if by_token == Some(true) {
            return Ok(());
        }
        if signing.is_empty() {
            return Err(denied(match by_token {
                Some(_) => "the token is another one than the secret of this webhook",
                None => "the delivery has no token; is the same secret set at the host?",
            }));
        }
        signed(raw, signature, &signing, now)
    })
}

fn signed(
    body: &[u8],
    told: StandardSignature<'_>,
    secrets: &[&SecretString],
    now: Timestamp,
) -> Result<()> {
    let (Some(id), Some(timestamp), Some(signature)) = (told.id, told.timestamp, told.signature)
    else {
        return Err(denied("the delivery is not signed; is the same token set at the host?"));
    };
    let at = timestamp.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let at = at.ok_or_else(|| denied("the time of the signature is none"))?;
    if now.duration_since(at).abs() > WINDOW {
        return Err(denied("the signature is too old, or the clock of this machine is wrong"));
    }
    let signatures: Vec<Vec<u8>> = signature
        .split_ascii_whitespace()
        .take(16)
        .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?.as_bytes()).ok())
        .collect();
    if signatures.is_empty() {
        return Err(denied("the signature is not one of version 1 (`v1,...`)"));
    }
    let mut fits = Choice::from(0);
    for secret in secrets {
        let made = mac(secret, id, timestamp, body)?;
        for told in &signatures {
            fits |= made.as_slice().ct_eq(told);
        }
    }
    if bool::from(fits) {
        return Ok(());
    }
    Err(denied("the signature was made with another secret, or of another body"))
}

fn mac(secret: &SecretString, id: &str, timestamp: &str, body: &[u8]) -> Result<Vec<u8>> {
    let secret = secret.expose_secret();
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret).trim_end_matches('=');
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    let key = BASE64
        .decode(format!("{text}{padding}").as_bytes())
        .map_err(|_| denied("a signing token of this webhook is not `whsec_` and Base64"))?;
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return Ok(Vec::new()) };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().to_vec())
}

fn denied(message: &'static str) -> Error {
    Error::denied(OPERATION, message)
}

#[cfg(test)]
mod tests {
    use workflows_core::ErrorKind;

    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: &str = "1614265330";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn now() -> Timestamp {
        Timestamp::from_second(1_614_265_330 + 200).unwrap()
    }

    fn check(
        told: StandardSignature<'_>,
        token: Option<&str>,
        secrets: &[&str],
        now: Timestamp,
    ) -> Result<Verified> {
        let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        verify_standard(Bytes::from_static(BODY), told, token, &secrets, now)
    }

    fn told() -> StandardSignature<'static> {
        StandardSignature { id: Some(ID), timestamp: Some(AT), signature: Some(SIGNATURE) }
    }

    #[track_caller]
    fn refused(result: Result<Verified>, because: &str) {
        let error = result.expect_err("it was not refused");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(because), "{error}");
        assert!(!format!("{error:?}").contains("MfKQ9"), "the error tells the secret");
    }

    #[test]
    fn the_specifications_own_example_is_verified() {
        let verified = check(told(), None, &[SECRET], now()).expect("it is verified");
        assert_eq!(&verified.body()[..], BODY);
        let several = format!("v1,bm9uc2Vuc2U= v1a,xyz {SIGNATURE}");
        let told = StandardSignature { signature: Some(&several), ..told() };
        assert!(check(told, None, &["whsec_bm90aGluZw==", SECRET], now()).is_ok());
    }

    #[test]
    fn an_old_delivery_is_not_taken_again() {
        let later = |minutes| now() + SignedDuration::from_mins(minutes);
        assert!(check(told(), None, &[SECRET], later(1)).is_ok());
        refused(check(told(), None, &[SECRET], later(2)), "too old");
        refused(check(told(), None, &[SECRET], later(-9)), "clock");
        let told = StandardSignature { timestamp: Some("soon"), ..told() };
        refused(check(told, None, &[SECRET], now()), "none");
    }

    #[test]
    fn what_is_not_signed_so_is_refused() {
        let unsigned = StandardSignature::default();
        refused(check(unsigned, None, &[SECRET], now()), "not signed");
        // A token proves nothing where signatures are wanted.
        refused(check(unsigned, Some(SECRET), &[SECRET], now()), "not signed");
        let of = |signature| StandardSignature { signature: Some(signature), ..told() };
        refused(check(of("v2,AAAA"), None, &[SECRET], now()), "version 1");
        refused(check(of("v1,AAAA"), None, &[SECRET], now()), "another secret");
        let other = StandardSignature { id: Some("msg_other"), ..told() };
        refused(check(other, None, &[SECRET], now()), "another secret");
        refused(check(told(), None, &["whsec_bm90aGluZw=="], now()), "another secret");
        refused(check(told(), None, &["whsec_***"], now()), "Base64");
        refused(check(told(), None, &[], now()), "no secret is configured");
        refused(check(told(), Some(""), &[""], now()), "empty");
    }

    #[test]
    fn a_token_is_compared_as_it_is() {
        let unsigned = StandardSignature::default();
        assert!(check(unsigned, Some("s3cret"), &["other", "s3cret"], now()).is_ok());
        refused(check(unsigned, Some("s3cre"), &["s3cret"], now()), "another one");
        refused(check(unsigned, None, &["s3cret"], now()), "no token");
        // While one takes the place of the other, both will do.
        assert!(check(told(), None, &["s3cret", SECRET], now()).is_ok());
        assert!(check(unsigned, Some("s3cret"), &["s3cret", SECRET], now()).is_ok());
    }
}
