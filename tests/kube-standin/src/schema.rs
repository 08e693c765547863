//! CustomResourceDefinitions: what an API server does with objects of their kinds.
//!
//! Unknown fields are pruned (or refused, as the request says), defaults are filled in, and values
//! are held against the structural schema and its CEL rules. What is no structural schema is refused
//! with the definition. CEL is evaluated by the `cel` crate, which has no type checker and no cost
//! limits: a rule that passes here may still be refused by an API server as ill-typed or too costly.

use cel::{Context, Program, Value as CelValue};
use serde_json::{Map, Value, json};

use crate::Refusal;

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) field: String,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn wrong(field: &str, reason: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { field: field.to_owned(), reason, message: message.into() }
}

const FREE: &str = "x-kubernetes-preserve-unknown-fields";

/// What keeps a schema from being a structural one.
pub(crate) fn check(schema: &Value, at: &str, found: &mut Vec<Wrong>) {
    let Some(fields) = schema.as_object() else {
        found.push(wrong(at, "FieldValueInvalid", "it must be an object"));
        return;
    };
    const KNOWN: [&str; 25] = [
        "title",
        "type",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "nullable",
        "default",
        FREE,
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
        "x-kubernetes-int-or-string",
    ];
    for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        found.push(wrong(&format!("{at}.{name}"), "FieldValueForbidden", "Forbidden"));
    }
    let is_free = schema[FREE] == true;
    let kind = schema["type"].as_str();
    if kind.is_none() && !is_free && schema["x-kubernetes-int-or-string"] != true {
        let message = "Required value: must not be empty for specified object fields";
        found.push(wrong(&format!("{at}.type"), "FieldValueRequired", message));
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        let message = "Forbidden: additionalProperties and properties are mutual exclusive";
        found.push(wrong(&format!("{at}.additionalProperties"), "FieldValueForbidden", message));
    }
    const FORMATS: [&str; 6] = ["int32", "int64", "double", "date-time", "byte", "password"];
    if let Some(format) = schema["format"].as_str().filter(|one| !FORMATS.contains(one)) {
        found.push(wrong(
            &format!("{at}.format"),
            "FieldValueInvalid",
            format!("unrecognized format {format:?}"),
        ));
    }
    if kind == Some("array") && !schema["items"].is_object() {
        found.push(wrong(&format!("{at}.items"), "FieldValueRequired", "Required value"));
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let item = &schema["items"];
        for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap_or_default();
            let required =
                item["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
            if !required && item["properties"][key].get("default").is_none() {
                let message = "Required value: this property is in x-kubernetes-list-map-keys, so it must \
                               have a default or be a required property";
                found.push(wrong(
                    &format!("{at}.items.properties[{key}].default"),
                    "FieldValueRequired",
                    message,
                ));
            }
        }
    }
    for (number, rule) in rules_of(schema).enumerate() {
        let at = format!("{at}.x-kubernetes-validations[{number}].rule");
        if kind.is_none() {
            found.push(wrong(&at, "FieldValueForbidden", "Forbidden: there is no type to check"));
        }
        if let Err(error) = Program::compile(rule["rule"].as_str().unwrap_or_default()) {
            found.push(wrong(&at, "FieldValueInvalid", format!("compilation failed: {error}")));
        }
        if let Some(name) = untyped_field(schema, rule["rule"].as_str().unwrap_or_default()) {
            let message = format!("compilation failed: undefined field '{name}'");
            found.push(wrong(&at, "FieldValueInvalid", message));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check(property, &format!("{at}.properties[{name}]"), found);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(inner @ Value::Object(_)) = fields.get(part) {
            check(inner, &format!("{at}.{part}"), found);
        }
    }
}

/// A field that a rule names and that rules cannot see: one that is not there, or has no type.
fn untyped_field(schema: &Value, rule: &str) -> Option<String> {
    let name_of = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    rule.split("self.").skip(1).map(name_of).find(|name| {
        schema["type"] == "object" && schema["properties"][name.as_str()].get("type").is_none()
    })
}

fn rules_of(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten()
}

/// Takes out what the schema does not know, and returns the names of what was taken out.
pub(crate) fn prune(schema: &Value, value: &mut Value, at: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let further = schema.get("additionalProperties");
            let is_free = schema[FREE] == true;
            fields.retain(|name, _| {
                let known = is_free
                    || further.is_some()
                    || properties.is_some_and(|all| all.contains_key(name));
                if !known {
                    unknown.push(join(at, name));
                }
                known
            });
            for (name, inner) in fields.iter_mut() {
                let inner_schema = properties.and_then(|all| all.get(name)).or(further);
                if let Some(inner_schema) = inner_schema {
                    prune(inner_schema, inner, &join(at, name), unknown);
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{at}[{number}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Fills in defaults. A `null` that may not be one gives way to the default.
pub(crate) fn fill_in(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let Some(default) = property.get("default") else { continue };
                let lacks = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => property["nullable"] != true,
                    Some(_) => false,
                };
                if lacks {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, inner) in fields.iter_mut() {
                let further = schema.get("additionalProperties");
                if let Some(property) = schema["properties"].get(name).or(further) {
                    fill_in(property, inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(&schema["items"], item)),
        _ => {}
    }
}

/// What is wrong with a value.
pub(crate) fn validate(schema: &Value, value: &Value, at: &str) -> Vec<Wrong> {
    let mut found = Vec::new();
    values(schema, value, at, &mut found);
    if !found.iter().any(|one| BLOCKING.contains(&one.reason)) {
        rules(schema, value, at, &mut found);
    } else if has_rules(schema) {
        found.push(wrong("<nil>", "FieldValueInvalid", UNCHECKED));
    }
    found
}

/// With one of these wrong, rules are not looked at.
const BLOCKING: [&str; 5] = [
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];
const UNCHECKED: &str = "Invalid value: null: some validation rules were not checked because the \
                         object was invalid; correct the existing errors to complete validation";

fn has_rules(schema: &Value) -> bool {
    let inner = ["items", "additionalProperties"].into_iter().filter_map(|part| schema.get(part));
    let properties = schema["properties"].as_object().into_iter().flat_map(|all| all.values());
    rules_of(schema).next().is_some() || inner.chain(properties).any(has_rules)
}

fn values(schema: &Value, value: &Value, at: &str, found: &mut Vec<Wrong>) {
    const INVALID: &str = "FieldValueInvalid";
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(kind) = schema["type"].as_str()
        && !is_of(value, kind)
    {
        let message = format!(
            "Invalid value: {:?}: {at} in body must be of type {kind}: {:?}",
            kind_of(value),
            kind_of(value)
        );
        found.push(wrong(at, "FieldValueTypeInvalid", message));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", words.join(", "));
        found.push(wrong(at, "FieldValueNotSupported", message));
    }
    let limit = |name: &str| schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let mut bound = |is: usize, least: &str, most: &str, what: &str| {
        if limit(least).is_some_and(|least| is < least) {
            let least = limit(least).unwrap_or_default();
            let message =
                format!("Invalid value: {is}: {at} in body should have at least {least} {what}");
            found.push(wrong(at, INVALID, message));
        }
        if limit(most).is_some_and(|most| is > most) {
            let most = limit(most).unwrap_or_default();
            found.push(wrong(
                at,
                "FieldValueTooMany",
                format!("Too many: {is}: must have at most {most} {what}"),
            ));
        }
    };
    match value {
        Value::String(text) => {
            let is = text.chars().count();
            if limit("minLength").is_some_and(|least| is < least) {
                let message = format!(
                    "Invalid value: {text:?}: {at} in body should be at least {} chars long",
                    schema["minLength"]
                );
                found.push(wrong(at, INVALID, message));
            }
            if limit("maxLength").is_some_and(|most| is > most) {
                let message =
                    format!("Too long: may not be more than {} bytes", schema["maxLength"]);
                found.push(wrong(at, "FieldValueTooLong", message));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && !regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
            {
                let message =
                    format!("Invalid value: {text:?}: {at} in body should match '{pattern}'");
                found.push(wrong(at, INVALID, message));
            }
            if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
                let message =
                    format!("Invalid value: {text:?}: {at} in body must be of type date-time");
                found.push(wrong(at, INVALID, message));
            }
        }
        Value::Number(number) => {
            let is = number.as_f64().unwrap_or_default();
            if schema["minimum"].as_f64().is_some_and(|least| is < least) {
                let message = format!(
                    "Invalid value: {number}: {at} in body should be greater than or equal to {}",
                    schema["minimum"].as_f64().unwrap_or_default()
                );
                found.push(wrong(at, INVALID, message));
            }
            if schema["maximum"].as_f64().is_some_and(|most| is > most) {
                let message = format!(
                    "Invalid value: {number}: {at} in body should be less than or equal to {}",
                    schema["maximum"].as_f64().unwrap_or_default()
                );
                found.push(wrong(at, INVALID, message));
            }
        }
        Value::Array(items) => {
            bound(items.len(), "minItems", "maxItems", "items");
            unique(schema, items, at, found);
            for (number, item) in items.iter().enumerate() {
                values(&schema["items"], item, &format!("{at}[{number}]"), found);
            }
        }
        Value::Object(fields) => {
            bound(fields.len(), "minProperties", "maxProperties", "properties");
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !fields.contains_key(name) {
                    found.push(wrong(&join(at, name), "FieldValueRequired", "Required value"));
                }
            }
            for (name, inner) in fields {
                let further = schema.get("additionalProperties").filter(|one| one.is_object());
                if let Some(property) = schema["properties"].get(name).or(further) {
                    values(property, inner, &join(at, name), found);
                }
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn unique(schema: &Value, items: &[Value], at: &str, found: &mut Vec<Wrong>) {
    let keys: Option<Vec<&str>> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            Some(keys.into_iter().flatten().filter_map(Value::as_str).collect())
        }
        Some("set") => None,
        _ => return,
    };
    let key = |item: &Value| match &keys {
        None => item.clone(),
        Some(keys) => {
            let pairs = keys.iter().map(|key| ((*key).to_owned(), item[*key].clone()));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    };
    for (number, item) in items.iter().enumerate() {
        let key_of = key(item);
        if items[..number].iter().any(|earlier| key(earlier) == key_of) {
            let message = format!("Duplicate value: {key_of}");
            found.push(wrong(&format!("{at}[{number}]"), "FieldValueDuplicate", message));
        }
    }
}

fn rules(schema: &Value, value: &Value, at: &str, found: &mut Vec<Wrong>) {
    if value.is_null() {
        return;
    }
    for rule in rules_of(schema) {
        let holds = evaluate(rule["rule"].as_str().unwrap_or_default(), value);
        let message = rule["message"].as_str().unwrap_or_default();
        match holds {
            Ok(true) => {}
            Ok(false) => {
                found.push(wrong(at, "FieldValueInvalid", format!("Invalid value: {message}")));
            }
            Err(error) => {
                let message = format!("Invalid value: rule failed: {error}");
                found.push(wrong(at, "FieldValueInvalid", message));
            }
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let further = schema.get("additionalProperties").filter(|one| one.is_object());
                if let Some(property) = schema["properties"].get(name).or(further) {
                    rules(property, inner, &join(at, name), found);
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                rules(&schema["items"], item, &format!("{at}[{number}]"), found);
            }
        }
        _ => {}
    }
}

fn evaluate(rule: &str, value: &Value) -> Result<bool, String> {
    let program = Program::compile(rule).map_err(|error| error.to_string())?;
    let mut context = Context::default();
    // Absent fields are absent for `has`; so are those that are null.
    let seen = without_nulls(value);
    context.add_variable("self", seen).map_err(|error| error.to_string())?;
    match program.execute(&context) {
        Ok(CelValue::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("{other:?} is no bool")),
        Err(error) => Err(error.to_string()),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        kind => kind_of(value) == kind,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// The refusal of an object of that kind and name for all that is wrong with it.
pub(crate) fn refusal(resource: &crate::Resource, name: &str, all: &[Wrong]) -> Refusal {
    let told: Vec<String> =
        all.iter().map(|one| format!("{}: {}", one.field, one.message)).collect();
    let told = match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let message = format!("{} {name:?} is invalid: {told}", resource.kind_in_group());
    let mut details = resource.details(name);
    details["kind"] = resource.kind.clone().into();
    let causes = all
        .iter()
        .map(|one| json!({"reason": one.reason, "message": one.message, "field": one.field}));
    details["causes"] = Value::Array(causes.collect());
    Refusal::new(422, "Invalid", message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {
            "type": "object", "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 3},
                "word": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "free": {FREE: true},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                         "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
            },
            "x-kubernetes-validations": [{"rule": "!has(self.map) || has(self.list)", "message": "map needs list"}],
        }}})
    }

    fn told(spec: Value) -> Vec<String> {
        let object = json!({"spec": spec});
        let found = validate(&schema(), &object, "");
        found.into_iter().map(|one| format!("{}: {}", one.field, one.message)).collect()
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(
            told(
                json!({"name": "x", "free": [1, {"a": null}], "list": [{"k": "a"}], "map": {"x": 1}})
            ),
            [""; 0]
        );
    }

    #[test]
    fn each_way_to_be_wrong_is_told_with_its_field() {
        let unchecked = format!("<nil>: {UNCHECKED}");
        assert_eq!(told(json!({})), ["spec.name: Required value", &unchecked]);
        assert_eq!(
            told(json!({"name": 1})),
            [
                "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
                &unchecked,
            ]
        );
        assert_eq!(
            told(json!({"name": "long!"})),
            ["spec.name: Too long: may not be more than 3 bytes", &unchecked]
        );
        assert_eq!(
            told(json!({"name": "x", "word": "c"})),
            ["spec.word: Unsupported value: \"c\": supported values: \"a\", \"b\"", &unchecked]
        );
        assert_eq!(
            told(json!({"name": "x", "list": [{"k": "a"}, {"k": "a"}]})),
            ["spec.list[1]: Duplicate value: {\"k\":\"a\"}"]
        );
        assert_eq!(
            told(json!({"name": "x", "list": [], "map": {"a": 0}})),
            [
                "spec.map.a: Invalid value: 0: spec.map.a in body should be greater than or equal to 1"
            ]
        );
        assert_eq!(
            told(json!({"name": "x", "map": {"a": 1}})),
            ["spec: Invalid value: map needs list"]
        );
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"spec": {"name": "x", "nope": 1, "free": {"any": 1}, "list": [{"k": "a", "z": 1}]}});
        let mut unknown = Vec::new();
        prune(&schema(), &mut object, "", &mut unknown);
        fill_in(&schema(), &mut object);
        assert_eq!(unknown, ["spec.nope", "spec.list[0].z"]);
        let expected =
            json!({"spec": {"name": "x", "free": {"any": 1}, "list": [{"k": "a"}], "word": "a"}});
        assert_eq!(object, expected);
    }

    #[test]
    fn what_is_not_structural_is_told() {
        let mut found = Vec::new();
        let wrong = json!({"type": "object", "properties": {
            "a": {"description": "no type"}, "b": {"anyOf": []}, "c": {"type": "integer", "format": "uint32"},
            "d": {"type": "object", "properties": {"x": {FREE: true}},
                  "x-kubernetes-validations": [{"rule": "has(self.x)"}]},
        }});
        check(&wrong, "schema", &mut found);
        let fields: Vec<&str> = found.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "schema.properties[a].type",
                "schema.properties[b].anyOf",
                "schema.properties[b].type",
                "schema.properties[c].format",
                "schema.properties[d].x-kubernetes-validations[0].rule",
            ]
        );
    }
}
