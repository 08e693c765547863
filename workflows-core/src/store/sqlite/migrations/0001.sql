-- Times are nanoseconds since 1970. Bodies and keys of work are JSON.

CREATE TABLE schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;

-- The sequence of events and subject changes; the serial of everything else.
CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    serial INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES (1, 0, 0);

-- Tombstones of deliveries: 16 bytes of SHA-256 over what makes a delivery the same one.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE observations (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    connection TEXT NOT NULL,
    repo TEXT NOT NULL,
    repo_name TEXT NOT NULL,
    source TEXT NOT NULL,
    delivery TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    event TEXT,
    duplicate TEXT,
    received_at INTEGER NOT NULL
) STRICT;
CREATE INDEX observations_tenant ON observations (tenant, id, repo, received_at);
CREATE INDEX observations_age ON observations (received_at);

CREATE TABLE subjects (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    repo TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    changed INTEGER NOT NULL,
    updated_at INTEGER,
    UNIQUE (tenant, repo, subject)
) STRICT;

-- Tombstones of states: how often a subject had come to a state, this time included.
-- kind: 0 a change, 1 a baseline or a correction, 2 only passed (and no arrival).
CREATE TABLE arrivals (
    subject INTEGER NOT NULL,
    state TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    times INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    PRIMARY KEY (subject, state, sequence)
) STRICT, WITHOUT ROWID;

-- A key begins with its tenant.
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    repo TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    head TEXT,
    pull_request INTEGER,
    received_at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX events_tenant ON events (tenant, sequence, kind, received_at);
CREATE INDEX events_repo ON events (tenant, repo, sequence, kind, subject, received_at);
CREATE INDEX events_head ON events (tenant, head, sequence) WHERE head IS NOT NULL;
CREATE INDEX events_pull_request ON events (tenant, pull_request, sequence, repo)
    WHERE pull_request IS NOT NULL;
CREATE INDEX events_age ON events (received_at);

-- The id is the event's sequence.
CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX payloads_tenant ON payloads (tenant, id, size);

CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    event TEXT NOT NULL,
    attempt TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_tenant ON decisions (tenant, id);
CREATE INDEX decisions_event ON decisions (tenant, event, id, attempt);

CREATE TABLE trigger_sets (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, digest)
) STRICT;
CREATE TABLE decision_sets (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    decision INTEGER NOT NULL,
    PRIMARY KEY (tenant, digest, decision)
) STRICT, WITHOUT ROWID;
CREATE INDEX decision_sets_decision ON decision_sets (decision);

-- Tombstones of runs, and the way from a key to a run.
CREATE TABLE run_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    repo TEXT NOT NULL,
    repo_name TEXT NOT NULL,
    workflow_repo TEXT,
    workflow TEXT NOT NULL,
    trigger_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    event TEXT NOT NULL,
    commit_id TEXT,
    pull_request INTEGER,
    intake INTEGER NOT NULL,
    state TEXT NOT NULL,
    terminal INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    standing TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
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
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE group_members (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    run INTEGER NOT NULL,
    membership TEXT NOT NULL,
    PRIMARY KEY (tenant, name, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE statuses (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    repo TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    context TEXT NOT NULL,
    run TEXT,
    updated_at INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (tenant, repo, commit_id, context)
) STRICT;
CREATE INDEX statuses_tenant ON statuses (tenant, id);
CREATE INDEX statuses_repo ON statuses (tenant, repo, id);
CREATE INDEX statuses_commit ON statuses (tenant, commit_id, id);
CREATE INDEX statuses_age ON statuses (updated_at);

-- Tombstones of notifications, and the way from a key to a notification.
CREATE TABLE notification_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    notification INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    notifier TEXT NOT NULL,
    state TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX notifications_tenant ON notifications (tenant, id);
CREATE INDEX notifications_run ON notifications (tenant, run, state, notifier, id);
CREATE INDEX notifications_state ON notifications (tenant, state, id);

CREATE TABLE approvals (
    tenant TEXT NOT NULL,
    repo TEXT NOT NULL,
    subject TEXT NOT NULL,
    head TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, repo, subject, head)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- due: NULL when it can be claimed; else when it will be, its own time or the end of its lease.
-- leased_at: when the lease was given; NULL when nobody holds it.
-- joined: other work joined since the lease was given, due then.
CREATE TABLE work (
    id INTEGER PRIMARY KEY,
    stage INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    detail TEXT NOT NULL,
    due INTEGER,
    since INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    token INTEGER NOT NULL,
    leased_at INTEGER,
    joined INTEGER,
    error TEXT,
    UNIQUE (stage, tenant, key)
) STRICT;
CREATE INDEX work_ready ON work (stage, tenant, since, id) WHERE due IS NULL;
CREATE INDEX work_waiting ON work (stage, due) WHERE due IS NOT NULL;
CREATE INDEX work_leased ON work (leased_at) WHERE leased_at IS NOT NULL;
