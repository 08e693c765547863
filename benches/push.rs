//! Signed pushes, in the shape in which GitHub sends them
//! (<https://docs.github.com/webhooks/webhook-events-and-payloads#push>).

use bytes::Bytes;
use secrecy::SecretString;
use serde::Deserialize;
use workflows_core::{
    ConnectionName, Observation, RepoRef, SubjectClaim, Tenant, Verified,
    event::{Before, Payload, RefClaim, Seen},
};
use workflows_scm::webhook::sign_sha256;

/// A push as it arrives.
#[derive(Debug)]
pub struct Request {
    /// The delivery's id.
    pub delivery: String,
    /// The value of `X-Hub-Signature-256`.
    pub signature: String,
    /// The body.
    pub body: Bytes,
}

/// What a push says of a ref.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// The repository's id.
    pub id: &'a str,
    /// The repository's full name.
    pub repo: &'a str,
    /// The full name of the ref.
    pub reference: &'a str,
    /// The commit it was at; all zeros for none.
    pub before: String,
    /// The commit that it is at.
    pub after: String,
}

impl Push<'_> {
    /// The push as a signed request whose body has that many bytes.
    pub fn request(&self, delivery: String, bytes: usize, secret: &SecretString) -> Request {
        let mut push = serde_json::json!({
            "ref": self.reference,
            "before": self.before,
            "after": self.after,
            "repository": { "id": self.id, "full_name": self.repo },
            "sender": { "login": "ada" },
            "commits": [],
        });
        let commit = serde_json::json!({
            "id": self.after,
            "message": "Make the thing do what the thing should do, and say why in a line or two",
            "timestamp": "2026-01-02T03:04:05Z",
            "author": { "name": "Ada", "email": "ada@example.com", "username": "ada" },
            "added": ["src/one.rs"],
            "removed": [],
            "modified": ["src/two.rs", "src/three.rs"],
        });
        let room = bytes.saturating_sub(push.to_string().len() + 12);
        push["commits"] = vec![commit.clone(); room / (commit.to_string().len() + 1)].into();
        let short = bytes.saturating_sub(push.to_string().len() + 12);
        push["pad"] = "x".repeat(short).into();
        let body = Bytes::from(push.to_string());
        let signature = sign_sha256(secret, &body);
        Request { delivery, signature, body }
    }
}

/// What a push says, as far as intake needs it.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    repository: Repository,
    sender: Sender,
}

#[derive(Deserialize)]
struct Repository {
    id: String,
    full_name: String,
}

#[derive(Deserialize)]
struct Sender {
    login: String,
}

/// What a driver makes of a push.
///
/// # Panics
///
/// When it is none.
pub fn decode(connection: ConnectionName, delivery: &str, verified: &Verified) -> Observation {
    let push: Document = serde_json::from_slice(verified.body()).expect("it is a push");
    let repo = RepoRef {
        connection,
        id: push.repository.id.into(),
        name: push.repository.full_name.into(),
    };
    let before = push.before.parse().ok().filter(|_| !push.before.starts_with("00000000"));
    let claim = RefClaim {
        name: push.reference.into(),
        after: Some(push.after.parse().expect("a commit")),
        before: Before::Was(before),
        forced: None,
    };
    let headers = [("x-github-event", "push"), ("x-github-delivery", delivery)];
    Observation::new(
        Tenant::default(),
        repo,
        "webhook".into(),
        delivery.into(),
        Seen::Told,
        SubjectClaim::Ref(claim),
    )
    .by(push.sender.login)
    .with_payload(Payload::new(headers, verified.body().clone()))
}
