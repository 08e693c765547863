-- Times are nanoseconds since 1970. Bodies and keys of work are JSON.

CREATE TABLE schema (version bigint PRIMARY KEY, applied_at bigint NOT NULL);

-- The sequence of events and subject changes. Who counts it up keeps the row until its transaction
-- ends, so that sequences become visible in their order.
CREATE TABLE counters (
    one bigint PRIMARY KEY CHECK (one = 1),
    sequence bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO counters VALUES (1, 0);

-- Numbers of everything else, 64 at a time.
CREATE SEQUENCE serials INCREMENT BY 64;

-- Tombstones of deliveries: 16 bytes of SHA-256 over what makes a delivery the same one.
CREATE TABLE deliveries (
    id bigint PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    at bigint NOT NULL
);

CREATE TABLE observations (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    connection text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    repo_name text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    delivery text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    event text COLLATE "C",
    duplicate text COLLATE "C",
    received_at bigint NOT NULL
);
CREATE INDEX observations_tenant ON observations (tenant, id, repo, received_at);
CREATE INDEX observations_age ON observations (received_at);

CREATE TABLE subjects (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    changed bigint NOT NULL,
    updated_at bigint,
    UNIQUE (tenant, repo, subject)
);

-- Tombstones of states: how often a subject had come to a state, this time included.
-- kind: 0 a change, 1 a baseline or a correction, 2 only passed (and no arrival).
CREATE TABLE arrivals (
    subject bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    times bigint NOT NULL,
    at bigint NOT NULL,
    kind bigint NOT NULL,
    PRIMARY KEY (subject, state, sequence)
);

-- A key begins with its tenant.
CREATE TABLE events (
    sequence bigint PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    tenant text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    head text COLLATE "C",
    pull_request bigint,
    received_at bigint NOT NULL,
    body text COLLATE "C" NOT NULL
);
CREATE INDEX events_tenant ON events (tenant, sequence, kind, received_at);
CREATE INDEX events_repo ON events (tenant, repo, sequence, kind, subject, received_at);
CREATE INDEX events_head ON events (tenant, head, sequence) WHERE head IS NOT NULL;
CREATE INDEX events_pull_request ON events (tenant, pull_request, sequence, repo)
    WHERE pull_request IS NOT NULL;
CREATE INDEX events_age ON events (received_at);

-- The id is the event's sequence.
CREATE TABLE payloads (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    received_at bigint NOT NULL,
    headers text COLLATE "C" NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX payloads_tenant ON payloads (tenant, id, size);

CREATE TABLE tenant_bytes (
    tenant text COLLATE "C" PRIMARY KEY,
    bytes bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE decisions (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    attempt text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL
);
CREATE INDEX decisions_tenant ON decisions (tenant, id);
CREATE INDEX decisions_event ON decisions (tenant, event, id, attempt);

CREATE TABLE trigger_sets (
    tenant text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, digest)
);
CREATE TABLE decision_sets (
    tenant text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    decision bigint NOT NULL,
    PRIMARY KEY (tenant, digest, decision)
);
CREATE INDEX decision_sets_decision ON decision_sets (decision);

-- Tombstones of runs, and the way from a key to a run.
CREATE TABLE run_keys (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE runs (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    repo text COLLATE "C" NOT NULL,
    repo_name text COLLATE "C" NOT NULL,
    workflow_repo text COLLATE "C",
    workflow text COLLATE "C" NOT NULL,
    trigger_name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    commit_id text COLLATE "C",
    pull_request bigint,
    intake bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    terminal bigint NOT NULL,
    cancelling bigint NOT NULL,
    created_at bigint NOT NULL,
    finished_at bigint NOT NULL,
    standing text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL
);
CREATE INDEX runs_tenant ON runs (tenant, id);
CREATE INDEX runs_repo ON runs (tenant, repo, id);
CREATE INDEX runs_repo_name ON runs (tenant, repo_name, id);
CREATE INDEX runs_workflow ON runs (tenant, workflow, id);
CREATE INDEX runs_subject ON runs (tenant, subject, id, repo);
CREATE INDEX runs_event ON runs (tenant, event, id);
CREATE INDEX runs_commit ON runs (tenant, commit_id, id) WHERE commit_id IS NOT NULL;
CREATE INDEX runs_pull_request ON runs (tenant, pull_request, id, repo)
    WHERE pull_request IS NOT NULL;
CREATE INDEX runs_state ON runs (tenant, state, id);
CREATE INDEX runs_created ON runs (tenant, created_at);
CREATE INDEX runs_ended ON runs (finished_at) WHERE terminal = 1;

CREATE TABLE group_versions (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE group_members (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    membership text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, name, run)
);

CREATE TABLE statuses (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    commit_id text COLLATE "C" NOT NULL,
    context text COLLATE "C" NOT NULL,
    run text COLLATE "C",
    updated_at bigint NOT NULL,
    body text COLLATE "C" NOT NULL,
    UNIQUE (tenant, repo, commit_id, context)
);
CREATE INDEX statuses_tenant ON statuses (tenant, id);
CREATE INDEX statuses_repo ON statuses (tenant, repo, id);
CREATE INDEX statuses_commit ON statuses (tenant, commit_id, id);
CREATE INDEX statuses_age ON statuses (updated_at);

-- Tombstones of notifications, and the way from a key to a notification.
CREATE TABLE notification_keys (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    notification bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE TABLE notifications (
    id bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    run text COLLATE "C" NOT NULL,
    notifier text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL
);
CREATE INDEX notifications_tenant ON notifications (tenant, id);
CREATE INDEX notifications_run ON notifications (tenant, run, state, notifier, id);
CREATE INDEX notifications_state ON notifications (tenant, state, id);

CREATE TABLE approvals (
    tenant text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    head text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, repo, subject, head)
);

CREATE TABLE cursors (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- due: NULL when it can be claimed; else when it will be, its own time or the end of its lease.
-- leased_at: when the lease was given; NULL when nobody holds it.
-- joined: other work joined since the lease was given, due then.
-- holder: the name of the replica that holds it, where it has one.
CREATE TABLE work (
    id bigint PRIMARY KEY,
    stage bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    due bigint,
    since bigint NOT NULL,
    attempts bigint NOT NULL,
    token bigint NOT NULL,
    leased_at bigint,
    joined bigint,
    error text COLLATE "C",
    holder text COLLATE "C",
    UNIQUE (stage, tenant, key)
) WITH (fillfactor = 70);
CREATE INDEX work_ready ON work (stage, tenant, since, id) WHERE due IS NULL;
CREATE INDEX work_waiting ON work (stage, due) WHERE due IS NOT NULL;
CREATE INDEX work_leased ON work (leased_at) WHERE leased_at IS NOT NULL;
CREATE INDEX work_holder ON work (holder) WHERE holder IS NOT NULL;

-- Rows of these come and go, or change, all the time: they are cleaned by how many did, not by the
-- fifth of a table that may be large.
ALTER TABLE work SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE counters SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE tenant_bytes SET (autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000);
ALTER TABLE group_versions SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000);
ALTER TABLE group_members SET (autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000);
ALTER TABLE subjects SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000);
ALTER TABLE runs SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE statuses SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE notifications SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE observations SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE payloads SET (autovacuum_vacuum_scale_factor = 0.02);
