//! Signatures of webhook bodies: HMAC-SHA256 over the raw bytes, in hexadecimal.

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use workflows_core::{Error, Result, Verified};

const OPERATION: &str = "verify webhook";

/// Checks the signature of a body, before a byte of it is parsed.
///
/// The signature is the value of the header that carries it, `sha256=` and 64 hexadecimal digits, as
/// GitHub's `X-Hub-Signature-256` has it
/// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>). Any of the
/// secrets may have made it, so that a secret can be changed while deliveries come in; all of them
/// are tried, in time that does not depend on which one fits.
///
/// # Errors
///
/// `Denied` when there is no secret or an empty one, when the signature is missing, of another kind
/// (SHA-1 is refused), not well formed, or made with another secret or of another body.
///
/// ```
/// use bytes::Bytes;
/// use secrecy::SecretString;
/// use workflows_scm::webhook::{sign_sha256, verify_sha256};
///
/// let secrets = [SecretString::from("new"), SecretString::from("old")];
/// let body = Bytes::from_static(b"{}");
/// let signature = sign_sha256(&secrets[1], &body);
/// assert!(verify_sha256(body.clone(), Some(&signature), &secrets).is_ok());
/// assert!(verify_sha256(body.clone(), Some(&signature), &secrets[..1]).is_err());
/// assert!(verify_sha256(body, None, &secrets).is_err());
/// ```
pub fn verify_sha256(
    body: Bytes,
    signature: Option<&str>,
    secrets: &[SecretString],
) -> Result<Verified> {
    Verified::check(body, |raw| {
        if secrets.is_empty() {
            return Err(denied("no secret is configured for this webhook; set one"));
        }
        if secrets.iter().any(|secret| secret.expose_secret().is_empty()) {
            return Err(denied("a secret of this webhook is empty; set another"));
        }
        let told = told(signature)?;
        let mut fits = Choice::from(0);
        for secret in secrets {
            fits |= mac(secret, raw).as_slice().ct_eq(&told);
        }
        if bool::from(fits) {
            return Ok(());
        }
        Err(denied("the signature was made with another secret, or of another body"))
    })
}

/// The signature of a body: `sha256=` and 64 hexadecimal digits.
pub fn sign_sha256(secret: &SecretString, body: &[u8]) -> String {
    format!("sha256={}", HEXLOWER.encode(&mac(secret, body)))
}

fn told(signature: Option<&str>) -> Result<Vec<u8>> {
    let Some(signature) = signature else {
        return Err(denied("the delivery has no signature; is the same secret set at the host?"));
    };
    let Some(digits) = signature.strip_prefix("sha256=") else {
        return Err(denied("the signature is not one of SHA-256 (`sha256=..`)"));
    };
    match HEXLOWER_PERMISSIVE.decode(digits.as_bytes()) {
        Ok(bytes) if bytes.len() == 32 => Ok(bytes),
        _ => Err(denied("the signature does not have 64 hexadecimal digits")),
    }
}

fn mac(secret: &SecretString, body: &[u8]) -> Vec<u8> {
    let key = secret.expose_secret().as_bytes();
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

fn denied(message: &'static str) -> Error {
    Error::denied(OPERATION, message)
}

#[cfg(test)]
mod tests {
    use workflows_core::ErrorKind;

    use super::*;

    /// GitHub's own example, from "Validating webhook deliveries".
    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn check(body: &'static [u8], signature: Option<&str>, secrets: &[&str]) -> Result<Verified> {
        let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        verify_sha256(Bytes::from_static(body), signature, &secrets)
    }

    #[track_caller]
    fn refused(result: Result<Verified>, because: &str) {
        let error = result.expect_err("it was not refused");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(because), "{error}");
        assert!(!format!("{error:?}").contains(SECRET), "the error tells the secret");
    }

    #[test]
    fn the_hosts_own_example_is_verified() {
        let verified = check(BODY, Some(SIGNATURE), &[SECRET]).expect("it is verified");
        assert_eq!(&verified.body()[..], BODY);
    }

    #[test]
    fn signing_makes_what_verifying_takes() {
        assert_eq!(sign_sha256(&SecretString::from(SECRET), BODY), SIGNATURE);
    }

    #[test]
    fn any_of_several_secrets_may_have_signed() {
        assert!(check(BODY, Some(SIGNATURE), &["new", SECRET]).is_ok());
        assert!(check(BODY, Some(SIGNATURE), &[SECRET, "old"]).is_ok());
        refused(check(BODY, Some(SIGNATURE), &["new", "old"]), "another secret");
    }

    #[test]
    fn digits_of_either_case_are_read() {
        let upper = format!("sha256={}", SIGNATURE["sha256=".len()..].to_ascii_uppercase());
        assert!(check(BODY, Some(&upper), &[SECRET]).is_ok());
    }

    #[test]
    fn no_secret_means_refuse() {
        refused(check(BODY, Some(SIGNATURE), &[]), "no secret is configured");
        let empty = sign_sha256(&SecretString::from(""), BODY);
        refused(check(BODY, Some(&empty), &[""]), "empty");
        refused(check(BODY, Some(SIGNATURE), &[SECRET, ""]), "empty");
    }

    #[test]
    fn a_delivery_without_a_signature_is_refused() {
        refused(check(BODY, None, &[SECRET]), "no signature");
    }

    #[test]
    fn sha1_is_refused_even_when_it_is_right() {
        let sha1 = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";
        refused(check(BODY, Some(sha1), &[SECRET]), "not one of SHA-256");
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let digits = &SIGNATURE["sha256=".len()..];
        for wrong in ["", "sha256=", "sha256", digits, "SHA256=00", "sha512=00"] {
            refused(check(BODY, Some(wrong), &[SECRET]), "signature");
        }
        for wrong in [
            &SIGNATURE[..SIGNATURE.len() - 2],
            &format!("{SIGNATURE}00"),
            &format!("{SIGNATURE} "),
            &SIGNATURE.replace("75", "zz"),
        ] {
            refused(check(BODY, Some(wrong), &[SECRET]), "64 hexadecimal digits");
        }
    }

    #[test]
    fn a_changed_byte_of_body_or_signature_is_refused() {
        refused(check(b"Hello, World?", Some(SIGNATURE), &[SECRET]), "another body");
        refused(check(b"", Some(SIGNATURE), &[SECRET]), "another body");
        let changed = SIGNATURE.replacen("757", "758", 1);
        refused(check(BODY, Some(&changed), &[SECRET]), "another secret");
    }
}
