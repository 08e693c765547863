//! The custom resources as they are in the cluster now.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use workflows_core::Tenant;

use crate::resources::{GROUP, VERSION};

/// A kind of custom resource, in the order in which changes are followed: what others hang on first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Policy,
    ScmConnection,
    Notifier,
    Workflow,
}

impl Kind {
    pub(super) const ALL: [Self; 4] =
        [Self::Policy, Self::ScmConnection, Self::Notifier, Self::Workflow];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Policy => "Policy",
            Self::ScmConnection => "ScmConnection",
            Self::Notifier => "Notifier",
            Self::Workflow => "Workflow",
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, self.name()))
    }

    /// The objects of a namespace.
    pub(super) fn of(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }
}

/// An object's namespace and name.
pub(super) type Key = (String, String);

/// An object, as small as it can be kept.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) resource_version: String,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) finalizers: Vec<String>,
    pub(super) status: Value,
    /// The rest, as JSON.
    document: Box<[u8]>,
}

impl Object {
    pub(super) fn keep(kind: Kind, mut object: DynamicObject) -> Self {
        let status = object.data["status"].take();
        object.metadata.managed_fields = None;
        let document = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind.name(),
            "metadata": object.metadata,
            "spec": object.data["spec"].take(),
        });
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            deleted_at: object.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            finalizers: object.metadata.finalizers.clone().unwrap_or_default(),
            status,
            document: document.to_string().into_bytes().into(),
        }
    }

    /// Whether its status has a condition of that name.
    pub(super) fn says(&self, condition: &str) -> bool {
        let conditions = self.status["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == condition)
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// The whole object without its status.
    pub(super) fn document(&self) -> Value {
        serde_json::from_slice(&self.document).unwrap_or_default()
    }

    /// What it says.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    pub(super) fn spec<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_value(self.document()["spec"].take())
            .map_err(|error| format!("spec: {error}"))
    }
}

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change {
    /// A list of a place begins.
    Listing(Place),
    /// An object of the list.
    Listed(Place, Box<Object>),
    /// The list is whole: what it did not have is gone.
    WholeList(Place),
    /// An object is there, or other than before.
    Put(Box<Object>),
    /// An object is gone.
    Gone(Kind, Key),
}

/// A kind in a namespace, or in all of them.
pub(super) type Place = (Kind, Option<String>);

/// Where objects count: everywhere, or in these namespaces, and in the platform's what its people say
/// and grant. Its own workflows count only where it is one of them.
pub(super) fn places(namespaces: Option<&[String]>, platform: Option<&Tenant>) -> Vec<Place> {
    let Some(namespaces) = namespaces else {
        return Kind::ALL.map(|kind| (kind, None)).to_vec();
    };
    let namespaces: BTreeSet<&str> = namespaces.iter().map(String::as_str).collect();
    let platform = platform.map(Tenant::as_str).filter(|one| !namespaces.contains(one));
    let of_platform = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Workflow);
    let of_platform = of_platform.filter_map(|kind| Some((kind, Some(platform?.to_owned()))));
    let of_all =
        namespaces.iter().flat_map(|name| Kind::ALL.map(|kind| (kind, Some(name.to_string()))));
    of_all.chain(of_platform).collect()
}

/// Watches all of these places.
pub(super) fn watch(client: &Client, places: &[Place]) -> BoxStream<'static, Change> {
    stream::select_all(places.iter().map(|place| watched(client, place.clone()))).boxed()
}

fn watched(client: &Client, place: Place) -> BoxStream<'static, Change> {
    let (kind, namespace) = &place;
    let kind = *kind;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => kind.of(client, namespace),
        None => Api::all_with(client.clone(), &kind.resource()),
    };
    watcher(api, watcher::Config::default())
        .default_backoff()
        .filter_map(move |event| {
            let place = place.clone();
            let change = match event {
                Ok(watcher::Event::Init) => Some(Change::Listing(place)),
                Ok(watcher::Event::InitApply(object)) => {
                    Some(Change::Listed(place, Box::new(Object::keep(kind, object))))
                }
                Ok(watcher::Event::InitDone) => Some(Change::WholeList(place)),
                Ok(watcher::Event::Apply(object)) => {
                    Some(Change::Put(Box::new(Object::keep(kind, object))))
                }
                Ok(watcher::Event::Delete(object)) => Some(Change::Gone(
                    kind,
                    (object.namespace().unwrap_or_default(), object.name_any()),
                )),
                Err(error) => {
                    let namespace = place.1.as_deref().unwrap_or("all");
                    tracing::warn!(%error, kind = kind.name(), namespace, "a watch was broken; it is taken up again");
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}

/// The objects, as far as the watches have told.
#[derive(Debug, Default)]
pub(super) struct Objects {
    all: BTreeMap<Kind, BTreeMap<Key, Object>>,
    listing: BTreeMap<Place, BTreeSet<Key>>,
    whole: BTreeSet<Place>,
}

impl Objects {
    /// Follows a change. Returns the objects that it is about.
    pub(super) fn follow(&mut self, change: Change) -> Vec<(Kind, Key)> {
        match change {
            Change::Listing(place) => {
                self.listing.insert(place, BTreeSet::new());
                Vec::new()
            }
            Change::Listed(place, object) => {
                let key = object.key();
                self.listing.entry(place).or_default().insert(key.clone());
                self.put(*object)
            }
            Change::WholeList(place) => {
                let seen = self.listing.remove(&place).unwrap_or_default();
                let (kind, namespace) = &place;
                let of_place = |key: &Key| namespace.as_ref().is_none_or(|one| *one == key.0);
                let objects = self.all.entry(*kind).or_default();
                let gone: Vec<Key> = objects
                    .keys()
                    .filter(|key| of_place(key) && !seen.contains(key))
                    .cloned()
                    .collect();
                objects.retain(|key, _| !gone.contains(key));
                self.whole.insert(place.clone());
                gone.into_iter().map(|key| (place.0, key)).collect()
            }
            Change::Put(object) => self.put(*object),
            Change::Gone(kind, key) => {
                self.all.entry(kind).or_default().remove(&key);
                vec![(kind, key)]
            }
        }
    }

    fn put(&mut self, object: Object) -> Vec<(Kind, Key)> {
        let (kind, key) = (object.kind, object.key());
        self.all.entry(kind).or_default().insert(key.clone(), object);
        vec![(kind, key)]
    }

    /// Whether each of these places was listed once.
    pub(super) fn are_whole(&self, places: &[Place]) -> bool {
        places.iter().all(|place| self.whole.contains(place))
    }

    pub(super) fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.all.get(&kind)?.get(key)
    }

    /// The objects of a kind, in the order of namespace and name.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.all.get(&kind).into_iter().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_says_and_grants_is_always_looked_at() {
        let platform = Tenant::new("platform").unwrap();
        let names = |namespaces: Option<&[&str]>, platform: Option<&Tenant>| {
            let namespaces: Option<Vec<String>> =
                namespaces.map(|some| some.iter().map(|one| (*one).to_owned()).collect());
            let places = places(namespaces.as_deref(), platform);
            let text = |(kind, namespace): Place| {
                format!("{} {}", kind.name(), namespace.as_deref().unwrap_or("*"))
            };
            places.into_iter().map(text).collect::<Vec<_>>()
        };
        let of_team = ["Policy a", "ScmConnection a", "Notifier a", "Workflow a"];
        let of_platform = ["Policy platform", "ScmConnection platform", "Notifier platform"];
        let everywhere = ["Policy *", "ScmConnection *", "Notifier *", "Workflow *"];
        assert_eq!(names(None, Some(&platform)), everywhere);
        assert_eq!(names(Some(&["a", "a"]), None), of_team);
        assert_eq!(names(Some(&["a"]), Some(&platform)), [&of_team[..], &of_platform].concat());
        let own = names(Some(&["a", "platform"]), Some(&platform));
        assert_eq!(own.len(), 8);
        assert!(own.contains(&"Workflow platform".to_owned()), "it is one of them: {own:?}");
    }
}
