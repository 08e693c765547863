//! Which connections there are for which tenant, out of ScmConnections and their grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use workflows_core::{ConnectionName, Result, Tenant};

use super::{
    client::KubeClient,
    grants::Holders,
    kinds::BuiltConnection,
    objects::{Key, Kind, Object},
};
use crate::{error::from_kube, resources::ScmConnectionSpec};

/// An ScmConnection that can be used.
#[derive(Debug)]
pub(super) struct Usable {
    /// Its namespace and name.
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) generation: i64,
    /// The tenant whose secrets it uses.
    pub(super) owner: Tenant,
    pub(super) spec: ScmConnectionSpec,
    pub(super) built: BuiltConnection,
    /// The repositories at which hooks were registered before.
    pub(super) hooks: BTreeSet<String>,
}

impl Usable {
    /// The object as it is now; `None` when it is another one by now, or is being deleted.
    ///
    /// # Errors
    ///
    /// As the API server says.
    pub(super) async fn object(
        &self,
        client: &KubeClient,
        now: Timestamp,
    ) -> Result<Option<Object>> {
        let (namespace, name) = &self.key;
        let found = Kind::ScmConnection.of(client, namespace).get(name).await;
        let found = found.map_err(|error| from_kube("read a connection", error, now))?;
        let object = Object::keep(Kind::ScmConnection, found);
        Ok((object.uid == self.uid && object.deleted_at.is_none()).then_some(object))
    }

    /// The repositories that it names without a pattern.
    pub(super) fn literal_repositories(&self) -> impl Iterator<Item = &str> {
        self.spec.repositories.iter().map(String::as_str).filter(|name| {
            workflows_core::matching::Pattern::of_repository(name)
                .is_ok_and(|pattern| pattern.as_literal().is_some())
        })
    }
}

/// A connection of a tenant.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) connection: Arc<Usable>,
    /// Of its repositories, those that the tenant may use; all when empty.
    pub(super) limited_to: Vec<String>,
}

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&self.connection, &other.connection);
        (&one.uid, one.generation, &self.limited_to)
            == (&two.uid, two.generation, &other.limited_to)
    }
}

/// The connections of all tenants.
pub(super) type ServedMap = BTreeMap<(Tenant, ConnectionName), Served>;

/// The connections of all tenants, out of what can be used and who is used where.
pub(super) fn serve(usable: &BTreeMap<Key, Arc<Usable>>, holders: &Holders) -> ServedMap {
    let served = holders.of.iter().filter_map(|((namespace, name), holder)| {
        let connection = usable.get(holder)?;
        let tenant = Tenant::new(namespace.as_str()).ok()?;
        let grant = connection.spec.grants.iter().find(|grant| grant.namespace == *namespace);
        let limited_to = match grant {
            Some(grant) if tenant != connection.owner => grant.repositories.clone(),
            _ => Vec::new(),
        };
        let served = Served { connection: Arc::clone(connection), limited_to };
        Some(((tenant, ConnectionName::new(name.as_str())), served))
    });
    served.collect()
}
