//! The JSON Schema of the document, for editors and other tools.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{
    document::Workflow,
    load::{API_VERSION, KIND},
};

/// The JSON Schema (draft 2020-12) of the Workflow document, with what each field means.
///
/// It says what the fields are and of which types. The rules between fields are checked when a
/// document is loaded.
///
/// ```
/// let schema = workflows_core::workflow::json_schema();
/// assert_eq!(schema["properties"]["kind"]["const"], "Workflow");
/// ```
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Workflow>().to_value();
    schema["title"] = json!("Workflow");
    schema["properties"]["apiVersion"]["const"] = json!(API_VERSION);
    schema["properties"]["kind"]["const"] = json!(KIND);
    schema
}
