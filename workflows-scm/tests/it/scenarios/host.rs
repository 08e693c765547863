//! What the scenarios need of a host and its driver.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{EventSource, ManualClock, ScmDriver};
use workflows_scm::webhook::WebhookReceiver;

use super::table::Deed;

/// The name of the driver's connection.
pub(crate) const CONNECTION: &str = "host";

/// What things are called in the table that a host calls otherwise.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, String)>);

impl Names {
    /// Gives a commit its name.
    pub(crate) fn commit(&mut self, id: &str, name: &str) {
        self.0.push((id.to_owned(), name.to_owned()));
    }

    /// Gives a comment its name; `id` is the driver's.
    pub(crate) fn comment(&mut self, id: &str, name: &str) {
        self.0.push((format!("comment/{id}/"), format!("comment/{name}/")));
    }

    /// The id of the commit of that name.
    pub(crate) fn id_of(&self, commit: &str) -> String {
        let found = self.0.iter().find(|(_, name)| name == commit);
        found.unwrap_or_else(|| panic!("there is no commit {commit}")).0.clone()
    }

    /// A text with the names in place of what they are for.
    pub(crate) fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }
}

/// A host on loopback with the clock of the test, and a driver that reaches it.
#[async_trait]
pub(crate) trait Host {
    fn clock(&self) -> ManualClock;

    fn driver(&self) -> Arc<dyn ScmDriver>;

    /// Makes a repository whose `main` has a commit. Returns its full name.
    fn create(&mut self, name: &str) -> String;

    /// Lets somebody do something in a repository, by its full name.
    fn does(&mut self, repo: &str, deed: Deed, names: &mut Names);

    /// What takes in the host's deliveries.
    fn receiver(&self) -> WebhookReceiver;

    /// Has the host tell an address of what happens in a repository from now on.
    async fn tell(&self, repo: &str, address: &str);

    /// Whether what the host tells reaches nobody, and is in its log all the same.
    fn cut_off(&self, is_cut_off: bool);

    /// Waits until the host has told everything.
    async fn settle(&self);

    /// Has the host tell everything once more that it has told once.
    fn tell_again(&self);

    /// Whether who looks sees what is written with a whole review.
    fn shows_reviews_to_polls(&self) -> bool {
        false
    }

    /// What reads the host's log of what it told about a repository.
    fn log(&self, receiver: &WebhookReceiver, repo: &str) -> Arc<dyn EventSource>;
}
