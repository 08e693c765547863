//! What these tests set up.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use workflows_core::{
    ConnectionName, ManualClock, RepoConnection, Result, ScmDriver, SecretRef, SecretStore, Tenant,
};
use workflows_scm::github::{GitHubCredentials, GitHubDriver, GitHubDriverBuilder};

pub(super) const NOW: &str = "2026-01-02T03:04:05Z";

pub(super) fn clock() -> ManualClock {
    ManualClock::at(NOW.parse().unwrap())
}

pub(super) fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A key of an App: private and public, in PEM.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) private: String,
    pub(super) public: String,
}

fn key() -> Key {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    Key { private: pair.serialize_pem(), public: pair.public_key_pem() }
}

pub(super) static KEY: LazyLock<Key> = LazyLock::new(key);
pub(super) static OTHER_KEY: LazyLock<Key> = LazyLock::new(key);

/// A secret that a test changes.
#[derive(Debug)]
pub(super) struct Changing(Mutex<SecretString>);

impl Changing {
    pub(super) fn new(value: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(SecretString::from(value.to_owned()))))
    }

    pub(super) fn change(&self, value: &str) {
        *self.0.lock().unwrap() = SecretString::from(value.to_owned());
    }
}

#[async_trait]
impl SecretStore for Changing {
    async fn get(&self, _: &Tenant, _: &SecretRef) -> Result<SecretString> {
        Ok(self.0.lock().unwrap().clone())
    }
}

pub(super) fn reference() -> SecretRef {
    SecretRef { name: "github".into(), key: "credential".into() }
}

/// A driver for a server, with a credential out of a store.
pub(super) fn driver(url: &str, clock: &ManualClock) -> GitHubDriverBuilder {
    GitHubDriver::builder().base(url).clock(Arc::new(clock.clone()))
}

pub(super) fn app(url: &str, clock: &ManualClock, secrets: Arc<Changing>) -> GitHubDriver {
    driver(url, clock)
        .credentials(GitHubCredentials::app(7, reference()))
        .secrets(Tenant::default(), secrets)
        .build()
        .unwrap()
}

pub(super) fn with_token(url: &str, clock: &ManualClock) -> GitHubDriver {
    driver(url, clock)
        .credentials(GitHubCredentials::token(SecretString::from("t0ken".to_owned())))
        .build()
        .unwrap()
}

pub(super) async fn connect(driver: &GitHubDriver) -> Result<Arc<dyn RepoConnection>> {
    driver.connect(&ConnectionName::new("acme"), "acme/api").await
}

/// What GitHub says of `acme/api`.
pub(super) fn repository() -> Value {
    json!({
        "id": 1, "full_name": "acme/api", "default_branch": "main",
        "clone_url": "https://github.com/acme/api.git", "html_url": "https://github.com/acme/api",
    })
}
