-- Runs are narrowed by time, and by trigger, without looking at a row for each that is left out.
DROP INDEX runs_tenant;
DROP INDEX runs_repo;
DROP INDEX runs_repo_name;
DROP INDEX runs_workflow;
DROP INDEX runs_state;
CREATE INDEX runs_tenant ON runs (tenant, id, created_at, trigger_name);
CREATE INDEX runs_repo ON runs (tenant, repo, id, created_at, trigger_name);
CREATE INDEX runs_repo_name ON runs (tenant, repo_name, id, created_at, trigger_name);
CREATE INDEX runs_workflow ON runs (tenant, workflow, id, created_at, trigger_name);
CREATE INDEX runs_state ON runs (tenant, state, id, created_at, trigger_name);
