//! The description of the interface.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    failure::Failure,
    notifiers::SampleView,
    queues::QueuesView,
    views::{
        ApproveRequest, CancelRequest, ClearRequest, EventView, ExplanationView, HealthView,
        HoldRequest, NotificationView, Page, ReplayRequest, ReplayView, ResendRequest,
        RunScheduleRequest, RunView, ScheduleView, SimulateRequest, SimulationView, SubmitRequest,
        WholeRun,
    },
};

/// The interface as an OpenAPI 3.1 document. Its schemas are those of the types that are answered.
pub fn openapi() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let mut paths = Map::new();
    for (path, mut methods) in paths_of(&mut schemas) {
        let named = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let named = named.map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        });
        methods["parameters"] = named.collect();
        paths.insert(path.to_owned(), methods);
    }
    let schemas = schemas.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Workflows",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What ran, why, and what else shall. Callers show a token of the cluster; \
                            roles of the API group workflows.tekton.dev say who may do what.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    })
}

fn paths_of(schemas: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
    vec![
        (
            "/v1/namespaces/{namespace}/runs",
            json!({
                "get": reads::<Page<RunView>>(schemas, "Runs, newest first. They stay when their PipelineRuns are gone.", &[
                    ("repository", "The repository's full name."), ("workflow", "The workflow's name."),
                    ("trigger", "The trigger's name."), ("pullRequest", "The pull request's number."),
                    ("commit", "The whole commit id."), ("event", "The event's key."),
                    ("state", "One or more states, with commas between."), ("limit", "At most so many."),
                    ("after", "Where the page begins: `next` of the one before."),
                ]),
                "post": tells::<SubmitRequest>(schemas, "Runs what has a trigger `on: manual` for a repository."),
            }),
        ),
        (
            "/v1/namespaces/{namespace}/runs/{run}",
            json!({"get": reads::<WholeRun>(schemas, "One run.", &[])}),
        ),
        (
            "/v1/namespaces/{namespace}/runs/{run}/log",
            json!({"get": {
                "summary": "The log of a step.",
                "parameters": parameters(&[
                    ("task", "The task."), ("step", "The step."), ("follow", "`true`: also what is to come."),
                ]),
                "responses": {
                    "200": {"description": "The log.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    "default": failure(schemas),
                },
            }}),
        ),
        (
            "/v1/namespaces/{namespace}/runs/{run}/cancel",
            json!({"post": tells::<CancelRequest>(schemas, "Ends a run.")}),
        ),
        (
            "/v1/namespaces/{namespace}/runs/{run}/rerun",
            json!({"post": tells_nothing(schemas, "Runs again what a run was for.")}),
        ),
        (
            "/v1/namespaces/{namespace}/events",
            json!({"get": reads::<Page<EventView>>(schemas, "Events, newest first.", &[
                ("repositoryId", "The repository's id."), ("kind", "The kind of event."),
                ("commit", "The whole commit id."), ("pullRequest", "The pull request's number."),
                ("limit", "At most so many."), ("after", "Where the page begins."),
            ])}),
        ),
        (
            "/v1/namespaces/{namespace}/explain",
            json!({"get": reads::<ExplanationView>(schemas, "Why something ran, or did not.", &[
                ("event", "An event's key; or"), ("run", "a run's key; or"),
                ("repositoryId", "a repository's id, with"), ("commit", "a whole commit id."),
            ])}),
        ),
        (
            "/v1/namespaces/{namespace}/replay",
            json!({"post": {
                "summary": "What would have run for recorded events with other workflows. Nothing is created.",
                "requestBody": body::<ReplayRequest>(schemas),
                "responses": answers::<Vec<ReplayView>>(schemas, "200"),
            }}),
        ),
        (
            "/v1/namespaces/{namespace}/simulate",
            json!({"post": {
                "summary": "What would run if something happened. Nothing is created.",
                "requestBody": body::<SimulateRequest>(schemas),
                "responses": answers::<SimulationView>(schemas, "200"),
            }}),
        ),
        (
            "/v1/namespaces/{namespace}/approvals",
            json!({"post": tells::<ApproveRequest>(schemas, "Approves the head of a pull request.")}),
        ),
        (
            "/v1/namespaces/{namespace}/workflows/{workflow}/hold",
            json!({"post": tells::<HoldRequest>(schemas, "Keeps the runs of a workflow waiting.")}),
        ),
        (
            "/v1/namespaces/{namespace}/workflows/{workflow}/release",
            json!({"post": tells::<HoldRequest>(schemas, "Lets the runs of a held workflow go on.")}),
        ),
        (
            "/v1/namespaces/{namespace}/queues",
            json!({"get": reads::<QueuesView>(schemas, "Concurrency groups with what runs and waits in them, in order.", &[
                ("group", "The group's whole name; all groups when left out."),
            ])}),
        ),
        (
            "/v1/namespaces/{namespace}/queues/clear",
            json!({"post": tells::<ClearRequest>(schemas, "Ends every run that waits in a group.")}),
        ),
        (
            "/v1/namespaces/{namespace}/notifications",
            json!({"get": reads::<Page<NotificationView>>(schemas, "Notifications, newest first.", &[
                ("run", "The run's key."), ("state", "`pending`, `delivered`, or `dead` for dead letters."),
                ("limit", "At most so many."), ("after", "Where the page begins."),
            ])}),
        ),
        (
            "/v1/namespaces/{namespace}/notifications/resend",
            json!({"post": tells::<ResendRequest>(schemas, "Sends a dead letter again.")}),
        ),
        (
            "/v1/namespaces/{namespace}/notifiers/{notifier}/test",
            json!({"post": {
                "summary": "Asks a receiver whether what is configured would work, and sends a sample.",
                "parameters": [idempotency_key()],
                "responses": answers::<SampleView>(schemas, "200"),
            }}),
        ),
        (
            "/v1/namespaces/{namespace}/schedules",
            json!({"get": reads::<Page<ScheduleView>>(schemas, "Schedules, and when they fire next.", &[])}),
        ),
        (
            "/v1/namespaces/{namespace}/schedules/run",
            json!({"post": tells::<RunScheduleRequest>(schemas, "Runs a schedule now.")}),
        ),
        (
            "/v1/health",
            json!({"get": reads::<HealthView>(schemas, "How the controller gets on.", &[])}),
        ),
    ]
}

fn reads<T: JsonSchema>(
    schemas: &mut SchemaGenerator,
    summary: &str,
    queries: &[(&str, &str)],
) -> Value {
    json!({
        "summary": summary,
        "parameters": parameters(queries),
        "responses": answers::<T>(schemas, "200"),
    })
}

fn tells<T: JsonSchema>(schemas: &mut SchemaGenerator, summary: &str) -> Value {
    let mut told = tells_nothing(schemas, summary);
    told["requestBody"] = body::<T>(schemas);
    told
}

fn tells_nothing(schemas: &mut SchemaGenerator, summary: &str) -> Value {
    json!({
        "summary": summary,
        "description": "Answered when it is stored; it is carried out once, however often it is sent.",
        "parameters": [idempotency_key()],
        "responses": answers::<EventView>(schemas, "202"),
    })
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": true, "schema": {"type": "string"},
        "description": "The same when the request is sent again.",
    })
}

fn body<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({"content": {"application/json": {"schema": schemas.subschema_for::<T>()}}})
}

fn answers<T: JsonSchema>(schemas: &mut SchemaGenerator, code: &str) -> Value {
    let schema = schemas.subschema_for::<T>();
    let mut answers = json!({"default": failure(schemas)});
    answers[code] = json!({
        "description": "It is so.",
        "content": {"application/json": {"schema": schema}},
    });
    answers
}

fn failure(schemas: &mut SchemaGenerator) -> Value {
    json!({
        "description": "Why it came to nothing.",
        "content": {"application/json": {"schema": schemas.subschema_for::<Failure>()}},
    })
}

fn parameters(queries: &[(&str, &str)]) -> Value {
    let one = |(name, description): &(&str, &str)| json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}});
    queries.iter().map(one).collect()
}
