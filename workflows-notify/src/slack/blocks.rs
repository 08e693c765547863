//! Block Kit, as far as messages here use it: rich text, in which no text is markup
//! (<https://docs.slack.dev/reference/block-kit/blocks/rich-text-block/>).

use serde_json::{Value, json};
use url::Url;

use super::limits::ADDRESS;

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Bold,
    Code,
}

/// The parts of a line.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<Value>);

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A text that is shown as it is; nothing when it is empty, which Slack refuses.
    pub(super) fn text(mut self, text: &str, look: Look) -> Self {
        if !text.is_empty() {
            let mut part = json!({ "type": "text", "text": text });
            match look {
                Look::Plain => {}
                Look::Bold => part["style"] = json!({ "bold": true }),
                Look::Code => part["style"] = json!({ "code": true }),
            }
            self.0.push(part);
        }
        self
    }

    /// A text that leads somewhere; a mere text when the address is none that a browser should open.
    pub(super) fn link(mut self, text: &str, address: Option<&str>) -> Self {
        match address.and_then(safe) {
            Some(url) if !text.is_empty() => {
                self.0.push(json!({ "type": "link", "url": url, "text": text }));
                self
            }
            _ => self.text(text, Look::Plain),
        }
    }

    pub(super) fn emoji(mut self, name: &str) -> Self {
        self.0.push(json!({ "type": "emoji", "name": name }));
        self
    }

    /// Calls a person, or a group of people.
    pub(super) fn mention(mut self, id: &str) -> Self {
        self.0.push(match id.starts_with('S') {
            true => json!({ "type": "usergroup", "usergroup_id": id }),
            false => json!({ "type": "user", "user_id": id }),
        });
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An address that a browser may open.
fn safe(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    let has_no_secret = url.username().is_empty() && url.password().is_none();
    let text = url.to_string();
    (is_web && has_no_secret && text.len() <= ADDRESS).then_some(text)
}

/// A block of lines, each below the other, and what some program wrote.
pub(super) fn block(id: &str, lines: Vec<Line>, written: &str) -> Option<Value> {
    let mut parts: Vec<Value> = Vec::new();
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        if !parts.is_empty() {
            parts.push(json!({ "type": "text", "text": "\n" }));
        }
        parts.extend(line.0);
    }
    let mut elements = Vec::new();
    if !parts.is_empty() {
        elements.push(json!({ "type": "rich_text_section", "elements": parts }));
    }
    if !written.is_empty() {
        elements.push(json!({
            "type": "rich_text_preformatted",
            "elements": [{ "type": "text", "text": written }],
        }));
    }
    (!elements.is_empty())
        .then(|| json!({ "type": "rich_text", "block_id": id, "elements": elements }))
}
