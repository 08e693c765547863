//! Where each tenant's objects are.

use std::{collections::BTreeMap, sync::Arc};

use workflows_core::Tenant;

/// In which namespace a tenant's runs, secrets and custom resources are.
///
/// ```
/// use workflows_core::Tenant;
/// use workflows_k8s::Namespaces;
///
/// let team = Tenant::new("team-a").unwrap();
/// assert_eq!(Namespaces::same_name().of(&team), "team-a");
/// assert_eq!(Namespaces::one("ci").of(&team), "ci");
/// let some = Namespaces::some([(team.clone(), "builds")]);
/// assert_eq!(some.of(&team), "builds");
/// ```
#[derive(Debug, Clone)]
pub struct Namespaces(Kind);

#[derive(Debug, Clone)]
enum Kind {
    SameName,
    One(Arc<str>),
    Some(Arc<BTreeMap<Tenant, String>>),
}

impl Namespaces {
    /// A tenant is a namespace, of the same name. Runs are watched in the whole cluster.
    pub fn same_name() -> Self {
        Self(Kind::SameName)
    }

    /// All tenants share one namespace, which alone is watched.
    pub fn one(namespace: &str) -> Self {
        Self(Kind::One(namespace.into()))
    }

    /// These tenants have these namespaces, which alone are watched; another tenant has the
    /// namespace of its name.
    pub fn some<N: Into<String>>(namespaces: impl IntoIterator<Item = (Tenant, N)>) -> Self {
        let namespaces =
            namespaces.into_iter().map(|(tenant, namespace)| (tenant, namespace.into())).collect();
        Self(Kind::Some(Arc::new(namespaces)))
    }

    /// The namespace of a tenant.
    pub fn of(&self, tenant: &Tenant) -> String {
        match &self.0 {
            Kind::SameName => tenant.as_str().to_owned(),
            Kind::One(namespace) => namespace.to_string(),
            Kind::Some(namespaces) => match namespaces.get(tenant) {
                Some(namespace) => namespace.clone(),
                None => tenant.as_str().to_owned(),
            },
        }
    }

    /// Where to look for what belongs to any tenant: namespaces, or `None` for the whole cluster.
    pub(crate) fn watched(&self) -> Vec<Option<String>> {
        match &self.0 {
            Kind::SameName => vec![None],
            Kind::One(namespace) => vec![Some(namespace.to_string())],
            Kind::Some(namespaces) => {
                let mut all: Vec<_> = namespaces.values().cloned().map(Some).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }
}
