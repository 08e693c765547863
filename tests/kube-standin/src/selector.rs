//! Label and field selectors.

use serde_json::Value;

/// A selector, as queries carry it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    /// Reads both; `Err` is what is wrong, for people.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        let labels =
            split(labels).into_iter().map(|text| requirement(&text)).collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| match text.split_once('=') {
                Some((field @ ("metadata.name" | "metadata.namespace"), value)) => {
                    Ok((field.to_owned(), value.trim_start_matches('=').to_owned()))
                }
                _ => Err(format!("field label not supported: {text}")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str();
        let by_label = self.labels.iter().all(|requirement| match requirement {
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Missing(name) => label(name).is_none(),
            Requirement::In(name, values) => {
                label(name).is_some_and(|is| values.iter().any(|value| value == is))
            }
            Requirement::NotIn(name, values) => {
                label(name).is_none_or(|is| values.iter().all(|value| value != is))
            }
        });
        let by_field = self.fields.iter().all(|(field, value)| {
            let field = field.trim_start_matches("metadata.");
            object["metadata"][field].as_str() == Some(value)
        });
        by_label && by_field
    }
}

/// At commas that are not inside parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut inside) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        inside = c == '(' || (inside && c != ')');
        if c == ',' && !inside {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let values = |text: &str| -> Result<Vec<String>, String> {
        let inner = text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let inner = inner.ok_or_else(|| format!("unable to parse requirement: {text}"))?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((name, rest)) = text.split_once(" notin ") {
        return Ok(Requirement::NotIn(name.trim().into(), values(rest)?));
    }
    if let Some((name, rest)) = text.split_once(" in ") {
        return Ok(Requirement::In(name.trim().into(), values(rest)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(name.trim().into(), vec![value.trim().into()]));
    }
    if let Some((name, value)) = text.split_once('=') {
        let value = value.trim_start_matches('=').trim();
        return Ok(Requirement::In(name.trim().into(), vec![value.into()]));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::Missing(name.trim().into())),
        None => Ok(Requirement::Exists(text.trim().into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str) -> bool {
        let object = json!({"metadata": {"name": "x", "labels": {"a/b": "1", "tier": "ci"}}});
        Selector::parse(selector, "").unwrap().matches(&object)
    }

    #[test]
    fn selectors_of_every_form() {
        for yes in [
            "",
            "a/b",
            "!c",
            "tier=ci",
            "tier==ci",
            "tier!=x",
            "tier in (x, ci)",
            "z notin (x),a/b=1",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["c", "!tier", "tier=x", "tier!=ci", "tier in (x, y)", "tier notin (ci)", "a/b,c"]
        {
            assert!(!matches(no), "{no}");
        }
    }
}
