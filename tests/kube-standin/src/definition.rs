//! CustomResourceDefinitions as they come in through the API.

use serde_json::{Value, json};

use crate::{Refusal, Resource, State, schema};

/// The kind of definitions.
pub(crate) fn definitions() -> Resource {
    Resource::of_cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
}

/// What becomes of fields that a schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    /// They are left out, and the answer has a warning.
    Warn,
    /// They are left out.
    Ignore,
    /// The request is refused.
    Strict,
}

impl UnknownFields {
    /// As the parameter `fieldValidation` says.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Strict" => Self::Strict,
            "Ignore" => Self::Ignore,
            _ => Self::Warn,
        }
    }
}

impl State {
    /// Makes the kind of a definition known, when it is right.
    pub(crate) fn define(&mut self, definition: &mut Value) -> Result<(), Refusal> {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&definition["metadata"]["name"]);
        let mut wrong = Vec::new();
        let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        if name != expected {
            wrong.push(schema::Wrong {
                field: "metadata.name".to_owned(),
                reason: "FieldValueInvalid",
                message: format!(
                    "Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"
                ),
            });
        }
        let mut defined = Vec::new();
        for (number, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
            let of_objects = &version["schema"]["openAPIV3Schema"];
            let at = format!("spec.versions[{number}].schema.openAPIV3Schema");
            schema::check(of_objects, &at, &mut wrong);
            let mut resource = Resource::namespaced(
                &text(&spec["group"]),
                &text(&version["name"]),
                &text(&spec["names"]["kind"]),
                &text(&spec["names"]["plural"]),
            );
            resource.namespaced = spec["scope"] == "Namespaced";
            resource.has_status = version["subresources"]["status"].is_object();
            defined.push((resource, of_objects.clone()));
        }
        if !wrong.is_empty() {
            return Err(schema::refusal(&definitions(), &name, &wrong));
        }
        for (resource, of_objects) in defined {
            self.store.resources.insert(resource.clone());
            self.schemas.insert(resource, of_objects);
        }
        definition["status"] = json!({
            "conditions": [{"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}],
        });
        Ok(())
    }

    /// Holds an object against the schema of its kind. Returns what the client is warned of.
    pub(crate) fn hold(
        &self,
        resource: &Resource,
        name: &str,
        object: &mut Value,
        unknown_fields: UnknownFields,
    ) -> Result<Vec<String>, Refusal> {
        let Some(of_objects) = self.schemas.get(resource) else { return Ok(Vec::new()) };
        let mut unknown = Vec::new();
        for (field, inner) in object.as_object_mut().into_iter().flatten() {
            if ["apiVersion", "kind", "metadata"].contains(&field.as_str()) {
                continue;
            }
            match of_objects["properties"].get(field) {
                Some(property) => schema::prune(property, inner, field, &mut unknown),
                None => unknown.push(field.clone()),
            }
        }
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|field, _| {
                ["apiVersion", "kind", "metadata"].contains(&field.as_str())
                    || of_objects["properties"].get(field).is_some()
            });
        }
        let told: Vec<String> =
            unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        if unknown_fields == UnknownFields::Strict && !told.is_empty() {
            return Err(Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                resource.kind,
                resource.version,
                resource.kind,
                told.join(", ")
            )));
        }
        schema::fill_in(of_objects, object);
        let wrong = schema::validate(of_objects, object, "");
        match wrong.as_slice() {
            [] if unknown_fields == UnknownFields::Warn => Ok(told),
            [] => Ok(Vec::new()),
            wrong => Err(schema::refusal(resource, name, wrong)),
        }
    }
}
