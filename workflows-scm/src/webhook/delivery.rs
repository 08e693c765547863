//! What a host's deliveries are made of: [`DeliveryFormat`], and the [`Delivery`] that it reads.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;
use workflows_core::{DeliveryId, RepoId, Result, SubjectClaim, Verified};

/// How a host signs and writes its deliveries.
///
/// [`verify`](Self::verify) sees the raw bytes and parses none of them; [`decode`](Self::decode)
/// takes only what was verified. Neither asks the host anything.
#[async_trait]
pub trait DeliveryFormat: Debug + Send + Sync + 'static {
    /// Checks that the host sent these bytes. Any of the secrets may have signed them.
    ///
    /// # Errors
    ///
    /// `Denied` when it did not, or when there is no secret.
    fn verify(
        &self,
        headers: &DeliveryHeaders,
        body: Bytes,
        secrets: &[SecretString],
    ) -> Result<Verified>;

    /// Reads a delivery. What the host may send and no workflow can wait for, events and actions
    /// that are not known among it, is [`Told::Nothing`].
    ///
    /// # Errors
    ///
    /// `Invalid` when it is not what the host sends; the error names the place.
    fn decode(&self, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery>;

    /// The id and the name of a delivery as far as its headers tell, for the record of one that
    /// cannot be read.
    fn label(&self, headers: &DeliveryHeaders, body: &Bytes) -> (DeliveryId, Arc<str>);

    /// Whether a repository is one of those that the connection serves, by its full name.
    fn serves(&self, _repo: &str) -> bool {
        true
    }

    /// Hears that the host changed what the credential reaches, for what is cached about that.
    async fn access_changed(&self, _change: &AccessChange) {}
}

#[async_trait]
impl DeliveryFormat for Arc<dyn DeliveryFormat> {
    fn verify(
        &self,
        headers: &DeliveryHeaders,
        body: Bytes,
        secrets: &[SecretString],
    ) -> Result<Verified> {
        (**self).verify(headers, body, secrets)
    }

    fn decode(&self, headers: &DeliveryHeaders, body: &Verified) -> Result<Delivery> {
        (**self).decode(headers, body)
    }

    fn label(&self, headers: &DeliveryHeaders, body: &Bytes) -> (DeliveryId, Arc<str>) {
        (**self).label(headers, body)
    }

    fn serves(&self, repo: &str) -> bool {
        (**self).serves(repo)
    }

    async fn access_changed(&self, change: &AccessChange) {
        (**self).access_changed(change).await;
    }
}

/// The headers of a delivery. Of several with one name the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryHeaders(BTreeMap<String, String>);

impl DeliveryHeaders {
    /// Headers by name, in any case.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut by_name = BTreeMap::new();
        for (name, value) in headers {
            let name = name.as_ref().to_ascii_lowercase();
            by_name.entry(name).or_insert_with(|| value.as_ref().to_owned());
        }
        Self(by_name)
    }

    /// The value of a header, by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A delivery, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The host's id of it; a redelivery has the same one.
    pub id: DeliveryId,
    /// What the host calls it, such as `pull_request.opened`.
    pub what: Arc<str>,
    /// The repository that it is about, when it is about one.
    pub repo: Option<DeliveredRepo>,
    /// Who did it, by the host's name.
    pub sender: Option<Arc<str>>,
    /// When it happened, where the host tells.
    pub occurred_at: Option<Timestamp>,
    /// What it tells.
    pub told: Told,
}

/// A repository as a delivery names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredRepo {
    /// What the host calls it for good.
    pub id: RepoId,
    /// Its full name at the time.
    pub name: Arc<str>,
}

/// What a delivery tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Claims about subjects of its repository.
    Claims(Vec<SubjectClaim>),
    /// What the credential reaches has changed.
    AccessChanged(AccessChange),
    /// Nothing that a workflow could wait for; why, for people.
    Nothing(String),
}

/// A change of what a credential reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessChange {
    /// The owner whose repositories it is about.
    pub owner: Option<Arc<str>>,
    /// Full names of repositories that it reaches now.
    pub added: Vec<Arc<str>>,
    /// Full names of repositories that it reaches no longer.
    pub removed: Vec<Arc<str>>,
}
