//! From a JSON Schema to what Kubernetes calls a structural one.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// What is taken over as it is.
const KEPT: [&str; 10] = [
    "description",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "required",
    "enum",
];
/// The formats that API servers know, of those that Rust types have.
const FORMATS: [&str; 4] = ["int32", "int64", "double", "date-time"];

/// The structural schema of a type.
pub(super) fn structural_of<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    structural(settings.into_generator().into_root_schema_for::<T>().as_value())
}

/// A structural schema as `schemars` holds one.
pub(super) fn held(schema: Value) -> Schema {
    match schema {
        Value::Object(fields) => fields.into(),
        _ => Schema::default(),
    }
}

/// The structural schema of a JSON Schema without references.
///
/// In a structural schema each place has one type or none. Where a document may have several (one
/// pattern or a list of them), the place has none and takes anything; what is wrong there is told
/// when the object is read.
/// (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>)
fn structural(schema: &Value) -> Value {
    let Some(schema) = schema.as_object() else { return anything(None) };
    let variants = ["anyOf", "oneOf"].iter().find_map(|name| schema.get(*name)?.as_array());
    match variants {
        Some(variants) => of_variants(schema, variants),
        None => of_one(schema),
    }
}

fn of_variants(schema: &Map<String, Value>, variants: &[Value]) -> Value {
    let is_null = |variant: &&Value| variant["type"] == "null";
    let nullable = variants.iter().any(|variant| is_null(&variant));
    let others: Vec<&Value> = variants.iter().filter(|variant| !is_null(variant)).collect();
    let words: Option<Vec<Value>> = others.iter().map(|variant| words_of(variant)).collect();
    let mut one = match (words, others.as_slice()) {
        (Some(words), _) => {
            let all: Vec<&Value> =
                words.iter().flat_map(|some| some.as_array()).flatten().collect();
            json!({"type": "string", "enum": all})
        }
        (None, [single]) => structural(single),
        (None, _) => anything(None),
    };
    if let Some(description) = schema.get("description") {
        one["description"] = description.clone();
    }
    set_default(&mut one, schema);
    if nullable {
        one["nullable"] = true.into();
    }
    one
}

/// The words of an enumeration's variant.
fn words_of(variant: &Value) -> Option<Value> {
    match (variant.get("const"), variant.get("enum")) {
        (Some(word @ Value::String(_)), _) => Some(json!([word])),
        (None, Some(words)) => Some(words.clone()),
        _ => None,
    }
}

fn of_one(schema: &Map<String, Value>) -> Value {
    let (kind, nullable) = match schema.get("type") {
        Some(Value::String(kind)) => (Some(kind.as_str()), false),
        Some(Value::Array(kinds)) => {
            let named: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            let nullable = named.contains(&"null");
            let mut others = named.into_iter().filter(|kind| *kind != "null");
            match (others.next(), others.next()) {
                (Some(kind), None) => (Some(kind), nullable),
                _ => (None, nullable),
            }
        }
        _ => (None, false),
    };
    let Some(kind) = kind else {
        return match words_of(&Value::Object(schema.clone())) {
            Some(words) => json!({"type": "string", "enum": words}),
            None => anything(schema.get("description")),
        };
    };
    let mut out = json!({"type": kind});
    for name in KEPT {
        if let Some(value) = schema.get(name) {
            out[name] = value.clone();
        }
    }
    if let Some(format) =
        schema.get("format").filter(|format| FORMATS.iter().any(|one| *format == one))
    {
        out["format"] = format.clone();
    }
    if let Some(word) = schema.get("const") {
        out["enum"] = json!([word]);
    }
    set_default(&mut out, schema);
    if nullable {
        out["nullable"] = true.into();
    }
    match kind {
        "object" => of_object(schema, &mut out),
        "array" => out["items"] = schema.get("items").map_or_else(|| anything(None), structural),
        _ => {}
    }
    out
}

fn of_object(schema: &Map<String, Value>, out: &mut Value) {
    let properties = schema.get("properties").and_then(Value::as_object);
    match (properties, schema.get("additionalProperties")) {
        (Some(properties), _) if !properties.is_empty() => {
            let all = properties.iter().map(|(name, one)| (name.clone(), structural(one)));
            out["properties"] = Value::Object(all.collect());
        }
        (_, Some(values @ Value::Object(_))) => out["additionalProperties"] = structural(values),
        _ => out["x-kubernetes-preserve-unknown-fields"] = true.into(),
    }
}

fn set_default(out: &mut Value, schema: &Map<String, Value>) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        out["default"] = default.clone();
    }
}

fn anything(description: Option<&Value>) -> Value {
    let mut out = json!({"x-kubernetes-preserve-unknown-fields": true});
    if let Some(description) = description {
        out["description"] = description.clone();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_one_type_or_none() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "text": {"type": ["string", "null"], "description": "A text."},
                "number": {"type": "integer", "format": "uint32", "minimum": 0},
                "word": {"oneOf": [{"const": "a", "type": "string"}, {"enum": ["b", "c"], "type": "string"}]},
                "several": {"description": "One or many.", "anyOf": [
                    {"type": "string"}, {"type": "array", "items": {"type": "string"}},
                ]},
                "maybe": {"anyOf": [
                    {"type": "object", "properties": {"x": true}, "additionalProperties": false}, {"type": "null"},
                ]},
                "map": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
                "free": true,
            },
            "required": ["text"],
        });
        assert_eq!(
            structural(&schema),
            json!({
                "type": "object",
                "properties": {
                    "text": {"type": "string", "nullable": true, "description": "A text."},
                    "number": {"type": "integer", "minimum": 0},
                    "word": {"type": "string", "enum": ["a", "b", "c"]},
                    "several": {
                        "x-kubernetes-preserve-unknown-fields": true, "description": "One or many.",
                    },
                    "maybe": {
                        "type": "object", "nullable": true,
                        "properties": {"x": {"x-kubernetes-preserve-unknown-fields": true}},
                    },
                    "map": {
                        "type": "object", "additionalProperties": {"type": "string"}, "default": {},
                    },
                    "free": {"x-kubernetes-preserve-unknown-fields": true},
                },
                "required": ["text"],
            })
        );
    }
}
