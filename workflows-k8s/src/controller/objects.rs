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

/// Watches all kinds in these namespaces, or everywhere.
pub(super) fn watch(client: &Client, namespaces: Option<&[String]>) -> BoxStream<'static, Change> {
    let places: Vec<Option<String>> = match namespaces {
        Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        None => vec![None],
    };
    let streams = Kind::ALL.into_iter().flat_map(|kind| {
        places.iter().map(move |namespace| (kind, namespace.clone())).collect::<Vec<_>>()
    });
    stream::select_all(streams.map(|place| watched(client, place))).boxed()
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
                    tracing::warn!(%error, kind = kind.name(), "a watch was broken; it is taken up again");
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

    /// Whether every kind was listed once in each of so many places.
    pub(super) fn are_whole(&self, places: usize) -> bool {
        self.whole.len() >= places * Kind::ALL.len()
    }

    pub(super) fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.all.get(&kind)?.get(key)
    }

    /// The objects of a kind, in the order of namespace and name.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.all.get(&kind).into_iter().flat_map(BTreeMap::values)
    }
}
