//! A client that can stand in types with a `Debug`.

use std::{fmt, ops::Deref};

use kube::Client;

/// A client of the API server, of which `Debug` shows nothing.
#[derive(Clone)]
pub(super) struct KubeClient(pub(super) Client);

impl fmt::Debug for KubeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KubeClient")
    }
}

impl Deref for KubeClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}
