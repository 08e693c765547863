//! Who is used under which name in which namespace, out of objects that others are granted:
//! [`Holders`].

use std::collections::BTreeMap;

use super::objects::Key;

/// Who is used under which name in which namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// By namespace and name, the object.
    pub(super) of: BTreeMap<Key, Key>,
    /// By object, the namespaces in which its grant does nothing, and the object that is used there.
    pub(super) hidden: BTreeMap<Key, BTreeMap<String, Key>>,
}

/// Who is used, when these objects are there and grant themselves to these namespaces.
///
/// A namespace's own object comes first, also when it cannot be used; then what the platform's
/// namespace grants; then what others grant, in the order of their names. It does not matter who came
/// first.
pub(super) fn hold<'a>(
    objects: impl Iterator<Item = (&'a Key, Vec<&'a str>)> + Clone,
    platform: Option<&str>,
) -> Holders {
    let mut holders = Holders::default();
    for (key, _) in objects.clone() {
        holders.of.insert(key.clone(), key.clone());
    }
    let is_platforms = |key: &Key| platform == Some(key.0.as_str());
    let of_platform = objects.clone().filter(|(key, _)| is_platforms(key));
    let of_others = objects.filter(|(key, _)| !is_platforms(key));
    for (key, namespaces) in of_platform.chain(of_others) {
        for namespace in namespaces.into_iter().filter(|namespace| *namespace != key.0) {
            let there = (namespace.to_owned(), key.1.clone());
            match holders.of.get(&there) {
                Some(holder) if holder != key => {
                    let hidden = holders.hidden.entry(key.clone()).or_default();
                    hidden.insert(namespace.to_owned(), holder.clone());
                }
                _ => {
                    holders.of.insert(there, key.clone());
                }
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str) -> Key {
        (namespace.to_owned(), "chat".to_owned())
    }

    #[test]
    fn ones_own_comes_first_then_the_platforms_then_others_by_name() {
        let granters = [
            (key("alpha"), vec!["team", "other", "own", "alpha"]),
            (key("beta"), vec!["other", "free"]),
            (key("own"), vec![]),
            (key("platform"), vec!["team", "own"]),
        ];
        let objects = granters.iter().map(|(key, grants)| (key, grants.clone()));
        let holders = hold(objects, Some("platform"));
        let of = |namespace: &str| holders.of[&key(namespace)].0.as_str();
        let used = ["alpha", "beta", "own", "team", "other", "free"].map(of);
        assert_eq!(used, ["alpha", "beta", "own", "platform", "alpha", "beta"]);
        let hidden = |namespace: &str| {
            let hidden = holders.hidden.get(&key(namespace)).cloned().unwrap_or_default();
            hidden.into_iter().map(|(there, by)| format!("{there} by {}", by.0)).collect::<Vec<_>>()
        };
        assert_eq!(hidden("alpha"), ["own by own", "team by platform"]);
        assert_eq!(hidden("beta"), ["other by alpha"]);
        assert_eq!(hidden("platform"), ["own by own"]);
        assert_eq!(hidden("own"), [""; 0]);
    }
}
