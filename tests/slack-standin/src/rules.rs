//! What Slack takes of a message, as rules over its JSON. Each has the page that says so.

use serde_json::{Map, Value};

/// Blocks of a message: <https://docs.slack.dev/reference/block-kit/blocks/>.
pub const BLOCKS: usize = 50;
/// `block_id` of any block: the pages of the blocks below.
pub const BLOCK_ID: usize = 255;
/// `text` of a message; more is cut off:
/// <https://docs.slack.dev/reference/methods/chat.postMessage/#truncating>.
pub const TEXT: usize = 40_000;
/// All texts of all blocks. No page says it; `msg_blocks_too_long` comes from about 13,200 on:
/// <https://github.com/slackapi/bolt-js/issues/2509>.
pub const ALL_TEXTS: usize = 13_000;
/// <https://docs.slack.dev/reference/block-kit/blocks/header-block/>
pub const HEADER: usize = 150;
/// <https://docs.slack.dev/reference/block-kit/blocks/section-block/>
pub const SECTION: usize = 3_000;
/// <https://docs.slack.dev/reference/block-kit/blocks/section-block/>
pub const FIELDS: usize = 10;
/// <https://docs.slack.dev/reference/block-kit/blocks/section-block/>
pub const FIELD: usize = 2_000;
/// <https://docs.slack.dev/reference/block-kit/blocks/context-block/>
pub const CONTEXT: usize = 10;

/// What is wrong with the blocks of a message; nothing when Slack takes them.
pub fn violations(blocks: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let Some(blocks) = blocks.as_array() else {
        return vec!["blocks: must be an array".to_owned()];
    };
    if blocks.len() > BLOCKS {
        found.push(format!("blocks: {} of them, and at most {BLOCKS} are allowed", blocks.len()));
    }
    let mut ids = Vec::new();
    for (index, one) in blocks.iter().enumerate() {
        let mut check = Check { at: format!("blocks[{index}]"), found: &mut found };
        check.block(one);
        if let Some(id) = one.get("block_id").and_then(Value::as_str) {
            if ids.contains(&id) {
                found.push(format!("blocks[{index}]: the block_id {id:?} is there twice"));
            }
            ids.push(id);
        }
    }
    if length_of_texts(&Value::Array(blocks.clone())) > ALL_TEXTS {
        found.push(format!("blocks: their texts have more than {ALL_TEXTS} characters"));
    }
    found
}

/// In characters, all that is shown of some JSON.
fn length_of_texts(value: &Value) -> usize {
    match value {
        Value::Array(all) => all.iter().map(length_of_texts).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) if name == "text" => text.chars().count(),
                other => length_of_texts(other),
            })
            .sum(),
        _ => 0,
    }
}

struct Check<'a> {
    at: String,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn say(&mut self, what: impl AsRef<str>) {
        self.found.push(format!("{}: {}", self.at, what.as_ref()));
    }

    fn inside(&mut self, part: &str, check: impl FnOnce(&mut Check<'_>)) {
        let at = format!("{}.{part}", self.at);
        check(&mut Check { at, found: self.found });
    }

    /// Only these fields, besides `type` and `block_id`.
    fn only(&mut self, object: &Map<String, Value>, fields: &[&str]) {
        for name in object.keys() {
            if !["type", "block_id"].contains(&name.as_str()) && !fields.contains(&name.as_str()) {
                self.say(format!("the field {name:?} is unknown"));
            }
        }
    }

    /// A text of so many characters.
    fn text(&mut self, value: Option<&Value>, least: usize, most: usize) {
        match value.and_then(Value::as_str).map(|text| text.chars().count()) {
            None => self.say("must be a string"),
            Some(length) if length < least => self.say("must not be empty"),
            Some(length) if length > most => {
                self.say(format!("has {length} characters, and at most {most} are allowed"));
            }
            Some(_) => {}
        }
    }

    /// A list of so many elements.
    fn list<'v>(&mut self, value: Option<&'v Value>, least: usize, most: usize) -> &'v [Value] {
        match value.and_then(Value::as_array) {
            None => {
                self.say("must be an array");
                &[]
            }
            Some(all) => {
                if all.len() < least || all.len() > most {
                    self.say(format!(
                        "has {} elements, and {least} to {most} are allowed",
                        all.len()
                    ));
                }
                all
            }
        }
    }

    /// <https://docs.slack.dev/reference/block-kit/composition-objects/text-object/>
    fn text_object(&mut self, value: Option<&Value>, kinds: &[&str], most: usize) {
        let Some(object) = value.and_then(Value::as_object) else {
            return self.say("must be a text object");
        };
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        if !kinds.contains(&kind) {
            self.say(format!("must be {}", kinds.join(" or ")));
        }
        let fields: &[&str] =
            if kind == "mrkdwn" { &["text", "verbatim"] } else { &["text", "emoji"] };
        self.only(object, fields);
        self.inside("text", |check| check.text(object.get("text"), 1, most));
    }

    fn block(&mut self, block: &Value) {
        let Some(object) = block.as_object() else { return self.say("must be an object") };
        if let Some(id) = object.get("block_id") {
            self.inside("block_id", |check| check.text(Some(id), 1, BLOCK_ID));
        }
        match object.get("type").and_then(Value::as_str).unwrap_or_default() {
            "header" => {
                self.only(object, &["text"]);
                let text = object.get("text");
                self.inside("text", |check| check.text_object(text, &["plain_text"], HEADER));
            }
            "section" => self.section(object),
            "context" => {
                self.only(object, &["elements"]);
                for (n, one) in self.list(object.get("elements"), 1, CONTEXT).iter().enumerate() {
                    let kinds = ["plain_text", "mrkdwn"];
                    self.inside(&format!("elements[{n}]"), |check| {
                        check.text_object(Some(one), &kinds, FIELD);
                    });
                }
            }
            "divider" => self.only(object, &[]),
            "rich_text" => {
                self.only(object, &["elements"]);
                for (n, one) in self.list(object.get("elements"), 1, 1_000).iter().enumerate() {
                    self.inside(&format!("elements[{n}]"), |check| check.rich_text_part(one));
                }
            }
            kind => self.say(format!("the type {kind:?} is unknown")),
        }
    }

    fn section(&mut self, object: &Map<String, Value>) {
        self.only(object, &["text", "fields"]);
        let kinds = ["plain_text", "mrkdwn"];
        if object.get("text").is_none() && object.get("fields").is_none() {
            self.say("needs a text or fields");
        }
        if let Some(text) = object.get("text") {
            self.inside("text", |check| check.text_object(Some(text), &kinds, SECTION));
        }
        if object.contains_key("fields") {
            for (n, one) in self.list(object.get("fields"), 1, FIELDS).iter().enumerate() {
                self.inside(&format!("fields[{n}]"), |check| {
                    check.text_object(Some(one), &kinds, FIELD);
                });
            }
        }
    }

    /// <https://docs.slack.dev/reference/block-kit/blocks/rich-text-block/>
    fn rich_text_part(&mut self, part: &Value) {
        let Some(object) = part.as_object() else { return self.say("must be an object") };
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        let allowed: &[&str] = match kind {
            "rich_text_section" => &["text", "link", "emoji", "user", "usergroup", "channel"],
            "rich_text_preformatted" => &["text", "link"],
            "rich_text_quote" => &["text", "link", "emoji", "user", "usergroup", "channel"],
            kind => return self.say(format!("the type {kind:?} is unknown")),
        };
        self.only(object, &["elements", "border"]);
        for (n, one) in self.list(object.get("elements"), 1, 1_000).iter().enumerate() {
            self.inside(&format!("elements[{n}]"), |check| check.element(one, allowed));
        }
    }

    fn element(&mut self, element: &Value, allowed: &[&str]) {
        let Some(object) = element.as_object() else { return self.say("must be an object") };
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        if !allowed.contains(&kind) {
            return self.say(format!("the type {kind:?} is not allowed here"));
        }
        let string = |name: &str| object.get(name);
        match kind {
            "text" => {
                self.only(object, &["text", "style"]);
                self.inside("text", |check| check.text(string("text"), 1, usize::MAX));
            }
            "link" => {
                self.only(object, &["url", "text", "style", "unsafe"]);
                let url = string("url").and_then(Value::as_str).unwrap_or_default();
                if !url::Url::parse(url).is_ok_and(|url| url.host_str().is_some()) {
                    self.say("the url is none");
                }
            }
            "emoji" => {
                self.only(object, &["name"]);
                let name = string("name").and_then(Value::as_str).unwrap_or_default();
                let is_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
                if name.is_empty() || !name.bytes().all(is_name) {
                    self.say("the emoji has no name");
                }
            }
            "user" => self.id(object, "user_id", &["U", "W"]),
            "usergroup" => self.id(object, "usergroup_id", &["S"]),
            _ => self.id(object, "channel_id", &["C"]),
        }
        if let Some(style) = object.get("style").and_then(Value::as_object) {
            for (name, value) in style {
                let known = ["bold", "italic", "strike", "code"].contains(&name.as_str());
                if !known || !value.is_boolean() {
                    self.say(format!("the style {name:?} is unknown"));
                }
            }
        }
    }

    fn id(&mut self, object: &Map<String, Value>, field: &str, begins: &[&str]) {
        self.only(object, &[field, "style"]);
        let id = object.get(field).and_then(Value::as_str).unwrap_or_default();
        if !begins.iter().any(|begin| id.starts_with(begin)) {
            self.say(format!("the {field} is none"));
        }
    }
}

/// What is wrong with the metadata of a message
/// (<https://docs.slack.dev/messaging/message-metadata/>): values are texts, numbers and booleans, or
/// objects and arrays of objects of such.
pub(crate) fn metadata(metadata: &Value) -> Option<&'static str> {
    let kind = metadata.get("event_type").and_then(Value::as_str).unwrap_or_default();
    let payload = metadata.get("event_payload").and_then(Value::as_object);
    let plain = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    let flat = |value: &Value| {
        plain(value) || value.as_object().is_some_and(|object| object.values().all(plain))
    };
    let fits =
        |value: &Value| flat(value) || value.as_array().is_some_and(|all| all.iter().all(flat));
    match payload {
        _ if kind.is_empty() => Some("invalid_metadata_format"),
        Some(payload) if payload.values().all(fits) => None,
        _ => Some("invalid_metadata_format"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn section(elements: Value) -> Value {
        json!([{ "type": "rich_text", "elements": [
            { "type": "rich_text_section", "elements": elements },
        ]}])
    }

    #[test]
    fn what_slack_takes_breaks_no_rule() {
        let fine = json!([
            { "type": "header", "text": { "type": "plain_text", "text": "x".repeat(150) } },
            { "type": "divider" },
            { "type": "section", "text": { "type": "mrkdwn", "text": "x".repeat(3000) } },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": "x" }] },
        ]);
        assert_eq!(violations(&fine), Vec::<String>::new());
        let fine = section(json!([
            { "type": "text", "text": "<!channel>", "style": { "code": true } },
            { "type": "link", "url": "https://x.example/", "text": "x" },
            { "type": "emoji", "name": "white_check_mark" },
            { "type": "user", "user_id": "U1" },
        ]));
        assert_eq!(violations(&fine), Vec::<String>::new());
    }

    #[test]
    fn what_slack_refuses_breaks_a_rule() {
        let wrong = [
            json!({}),
            json!([{ "type": "header", "text": { "type": "plain_text", "text": "x".repeat(151) } }]),
            json!([{ "type": "header", "text": { "type": "mrkdwn", "text": "x" } }]),
            json!([{ "type": "section", "text": { "type": "mrkdwn", "text": "x".repeat(3001) } }]),
            json!([{ "type": "section" }]),
            json!([{ "type": "context", "elements": [] }]),
            json!([{ "type": "divider", "color": "red" }]),
            json!([{ "type": "divider", "block_id": "a" }, { "type": "divider", "block_id": "a" }]),
            json!([{ "type": "divider", "block_id": "x".repeat(256) }]),
            json!(vec![json!({ "type": "divider" }); 51]),
            json!([{ "type": "banner" }]),
            section(json!([])),
            section(json!([{ "type": "text", "text": "" }])),
            section(json!([{ "type": "text", "text": "x", "style": { "loud": true } }])),
            section(json!([{ "type": "link", "url": "x" }])),
            section(json!([{ "type": "user", "user_id": "alice" }])),
            section(json!([{ "type": "broadcast", "range": "channel" }])),
            section(json!([{ "type": "text", "text": "x".repeat(13_001) }])),
        ];
        for blocks in wrong {
            assert_ne!(violations(&blocks), Vec::<String>::new(), "{blocks}");
        }
    }
}
