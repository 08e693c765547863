//! What is there: channels, bots, webhooks, messages.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use workflows_core::SharedClock;

use crate::limits::{Limits, Spent};

/// A message as people see it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Shown {
    /// Its time stamp, which is its id.
    pub ts: String,
    /// The message in whose thread it is.
    pub thread: Option<String>,
    /// Whether it shows in the channel although it is in a thread.
    pub broadcast: bool,
    /// What notifications show.
    pub text: String,
    /// Its blocks.
    pub blocks: Value,
    /// Its metadata.
    pub metadata: Option<Value>,
    /// How often it was edited.
    pub edits: u32,
    /// Who wrote it.
    pub by: String,
}

impl Shown {
    /// The texts of its blocks, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        read(&self.blocks, &mut text);
        text.lines().map(str::to_owned).collect()
    }
}

/// Reads what people read, with emojis as `:name:` and mentions as `@id`.
fn read(value: &Value, text: &mut String) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| read(one, text)),
        Value::Object(object) => {
            let field = |name: &str| object.get(name).and_then(Value::as_str);
            match field("type") {
                Some("emoji") => text.push_str(&format!(":{}:", field("name").unwrap_or("?"))),
                Some("user") => text.push_str(&format!("@{}", field("user_id").unwrap_or("?"))),
                Some("usergroup") => {
                    text.push_str(&format!("@{}", field("usergroup_id").unwrap_or("?")));
                }
                _ => text.push_str(field("text").unwrap_or_default()),
            }
            if let Some(elements) = object.get("elements") {
                let is_written = field("type") == Some("rich_text_preformatted");
                let before = if is_written { "```\n" } else { "" };
                text.push_str(before);
                read(elements, text);
                if field("type").is_some_and(|kind| kind.starts_with("rich_text_")) {
                    text.push('\n');
                }
                text.push_str(before);
            }
        }
        _ => {}
    }
}

#[derive(Debug, Default)]
pub(crate) struct Channel {
    pub(crate) members: BTreeSet<String>,
    pub(crate) is_archived: bool,
    pub(crate) messages: Vec<Shown>,
}

#[derive(Debug)]
pub(crate) struct Bot {
    pub(crate) user: String,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) is_revoked: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: SharedClock,
    pub(crate) limits: Limits,
    pub(crate) spent: Spent,
    pub(crate) channels: BTreeMap<String, Channel>,
    /// By token.
    pub(crate) bots: BTreeMap<String, Bot>,
    /// Paths of incoming webhooks, and the channels that they lead to.
    pub(crate) webhooks: BTreeMap<String, String>,
    pub(crate) refused: Vec<String>,
    pub(crate) last_id: u64,
}

impl World {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A time stamp that no message has, later than all before.
    pub(crate) fn next_ts(&mut self) -> String {
        let serial = self.next_id() % 1_000_000;
        format!("{}.{serial:06}", self.now().as_second())
    }
}
