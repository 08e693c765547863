//! Following Notifiers: who may tell whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use workflows_core::{Notifier, NotifierName, Tenant, engine::NotifyPolicy};

use super::{
    kinds::DescribedNotifier,
    objects::{Key, Kind, Object, Objects},
    reconcile::Reconciler,
    statuses::Verdict,
};
use crate::resources::{NotifierSpec, READY};

/// The condition of an ScmConnection that says whether the notifiers that it names are there.
const NOTIFIERS_FOUND: &str = "NotifiersFound";

/// A Notifier that can be used.
#[derive(Debug, Clone)]
pub(super) struct BuiltNotifier {
    uid: String,
    generation: i64,
    spec: NotifierSpec,
    notifier: Arc<dyn Notifier>,
}

impl BuiltNotifier {
    fn is_of(&self, object: &Object) -> bool {
        (&self.uid, self.generation) == (&object.uid, object.generation)
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.uid, self.generation) == (&other.uid, other.generation)
    }
}

impl Reconciler {
    /// Returns the namespaces whose notifiers have other names now.
    pub(super) fn follow_notifiers(
        &mut self,
        objects: &Objects,
        keys: &BTreeSet<Key>,
    ) -> BTreeSet<String> {
        for key in keys {
            let object = objects.get(Kind::Notifier, key).filter(|one| one.deleted_at.is_none());
            let Some(object) = object else {
                self.notifiers.remove(key);
                continue;
            };
            let known = self.notifiers.get(key);
            if known.is_some_and(|one| one.is_of(object)) {
                continue;
            }
            match self.notifier_of(object) {
                Ok(built) => {
                    self.notifiers.insert(key.clone(), built);
                    self.check_secrets(object);
                }
                Err(problem) => {
                    self.notifiers.remove(key);
                    let verdict = Verdict::no(
                        "Invalid",
                        format!("{problem}; until it is mended it is not used"),
                    );
                    self.parts.statuses.tell(object, READY, verdict);
                }
            }
        }
        let present = objects.of(Kind::Notifier).filter(|object| object.deleted_at.is_none());
        let granting: Vec<(Key, Vec<&str>)> = present
            .map(|object| {
                let built = self.notifiers.get(&object.key());
                let grants = built.into_iter().flat_map(|one| &one.spec.grants);
                (object.key(), grants.map(String::as_str).collect())
            })
            .collect();
        let holders = self.hold(objects, Kind::Notifier, &granting);
        let wanted: BTreeMap<(Tenant, NotifierName), BuiltNotifier> = holders
            .of
            .iter()
            .filter_map(|((namespace, name), holder)| {
                let built = self.notifiers.get(holder)?.clone();
                let tenant = Tenant::new(namespace.as_str()).ok()?;
                Some(((tenant, NotifierName::new(name.as_str())), built))
            })
            .collect();
        let mut renamed = BTreeSet::new();
        for (tenant, name) in self.told.keys().filter(|key| !wanted.contains_key(*key)) {
            self.engine.unregister_notifier(tenant, name);
            renamed.insert(tenant.to_string());
        }
        for (key, built) in &wanted {
            let before = self.told.get(key);
            if before.is_some_and(|before| before.is_same(built)) {
                continue;
            }
            if before.is_none() {
                renamed.insert(key.0.to_string());
            }
            self.engine.register_notifier(&key.0, key.1.clone(), Arc::clone(&built.notifier));
        }
        self.told = wanted;
        self.say_who_is_told();
        renamed
    }

    /// Has the engine tell those who are told by default and in any case.
    fn say_who_is_told(&mut self) {
        let mut policies: BTreeMap<Tenant, NotifyPolicy> = BTreeMap::new();
        for ((tenant, name), BuiltNotifier { spec, .. }) in &self.told {
            if spec.by_default.is_none() && spec.always.is_none() {
                continue;
            }
            let of_tenant = policies.entry(tenant.clone()).or_default();
            of_tenant.by_default.extend(spec.by_default.iter().map(|one| one.of(name.clone())));
            of_tenant.always.extend(spec.always.iter().map(|one| one.of(name.clone())));
        }
        for tenant in self.notify_policies.keys().filter(|one| !policies.contains_key(*one)) {
            self.engine.set_notify_policy(tenant, NotifyPolicy::new());
        }
        for (tenant, policy) in &policies {
            if self.notify_policies.get(tenant) != Some(policy) {
                self.engine.set_notify_policy(tenant, policy.clone());
            }
        }
        self.notify_policies = policies;
    }

    /// Has connections that name notifiers say whether these are there.
    pub(super) fn find_notifiers_of_connections(&self, objects: &Objects) {
        for (key, usable) in &self.usable {
            let Some(object) = objects.get(Kind::ScmConnection, key) else { continue };
            let named = usable.spec.notify.iter().flatten().map(|one| &one.notifier);
            let is_missing = |name: &&NotifierName| {
                !self.told.contains_key(&(usable.owner.clone(), (*name).clone()))
            };
            let missing: BTreeSet<&str> =
                named.filter(is_missing).map(NotifierName::as_str).collect();
            let verdict = match missing.is_empty() {
                false => {
                    let missing: Vec<&str> = missing.into_iter().collect();
                    let message = format!(
                        "{} has no notifier that can be used by the name of {}; what it would be told \
                         is a dead letter",
                        usable.owner,
                        missing.join(", ")
                    );
                    Verdict::no("Missing", message)
                }
                true if usable.spec.notify.is_some() || object.says(NOTIFIERS_FOUND) => {
                    Verdict::yes("Found", "all notifiers that it names can be used")
                }
                true => continue,
            };
            self.parts.statuses.tell(object, NOTIFIERS_FOUND, verdict);
        }
    }

    fn notifier_of(&self, object: &Object) -> Result<BuiltNotifier, String> {
        let spec: NotifierSpec = object.spec()?;
        let owner = Tenant::new(object.namespace.as_str()).map_err(|error| error.to_string())?;
        let Some(kind) = self.parts.notifiers.get(&spec.kind) else {
            let known: Vec<&str> = self.parts.notifiers.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("spec.type: there is no type {:?}; there are: {known}", spec.kind));
        };
        let name = NotifierName::new(object.name.as_str());
        let description = DescribedNotifier {
            tenant: &owner,
            name: &name,
            spec: &spec,
            secrets: Arc::clone(&self.parts.secrets),
            clock: Arc::clone(&self.parts.clock),
        };
        for (field, occasions) in [("byDefault", &spec.by_default), ("always", &spec.always)] {
            if let Some(occasions) = occasions {
                let told = |error| format!("spec.{field}: {error}");
                occasions.of(name.clone()).check().map_err(told)?;
            }
        }
        let notifier = kind.build(&description).map_err(|error| error.to_string())?;
        let (uid, generation) = (object.uid.clone(), object.generation);
        Ok(BuiltNotifier { uid, generation, spec, notifier })
    }
}
