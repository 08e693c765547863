//! Who is called when somebody should look.

use std::{collections::BTreeMap, sync::Arc};

use workflows_core::{Error, Result, RunView};

/// People of the source-code host, by their Slack ids.
#[derive(Debug, Clone, Default)]
pub(super) struct People {
    /// By the host's names, in lower case: hosts do not tell apart names by case.
    known: BTreeMap<String, Arc<str>>,
    otherwise: Option<Arc<str>>,
}

impl People {
    pub(super) fn add(&mut self, name: &str, id: &str) -> Result<()> {
        self.known.insert(name.to_lowercase(), checked(id)?);
        Ok(())
    }

    pub(super) fn otherwise(&mut self, id: &str) -> Result<()> {
        self.otherwise = Some(checked(id)?);
        Ok(())
    }

    /// The id of whoever should look at a run.
    pub(super) fn to_look(&self, run: &RunView) -> Option<&str> {
        let author = run.author.as_ref().map(|name| name.to_lowercase());
        let known = author.and_then(|name| self.known.get(&name));
        known.or(self.otherwise.as_ref()).map(|id| &**id)
    }
}

/// Ids of users begin with `U` or `W`, those of groups with `S`.
fn checked(id: &str) -> Result<Arc<str>> {
    let begins = id.starts_with(['U', 'W', 'S']);
    let letters = id.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    if !begins || !letters || !(2..=30).contains(&id.len()) {
        return Err(Error::invalid(
            "build the Slack notifier",
            "an id to mention is that of a user (U...) or of a group (S...), which the profile \
             shows under \"Copy member ID\"",
        )
        .with("id", format!("{id:?}")));
    }
    Ok(id.into())
}
