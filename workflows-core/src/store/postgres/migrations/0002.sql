-- Runs are listed by when they were planned, within whatever narrows them, and what leaves them out
-- besides is told by the index.
DROP INDEX runs_tenant;
DROP INDEX runs_repo;
DROP INDEX runs_repo_name;
DROP INDEX runs_workflow;
DROP INDEX runs_subject;
DROP INDEX runs_event;
DROP INDEX runs_commit;
DROP INDEX runs_pull_request;
DROP INDEX runs_state;
DROP INDEX runs_created;
CREATE INDEX runs_tenant ON runs (tenant, created_at, id, trigger_name);
CREATE INDEX runs_repo ON runs (tenant, repo, created_at, id, state, trigger_name);
CREATE INDEX runs_repo_name ON runs (tenant, repo_name, created_at, id, state, trigger_name);
CREATE INDEX runs_workflow ON runs (tenant, workflow, created_at, id, state, trigger_name);
CREATE INDEX runs_subject ON runs (tenant, subject, created_at, id, repo);
CREATE INDEX runs_event ON runs (tenant, event, created_at, id);
CREATE INDEX runs_commit ON runs (tenant, commit_id, created_at, id) WHERE commit_id IS NOT NULL;
CREATE INDEX runs_pull_request ON runs (tenant, pull_request, created_at, id, repo) WHERE pull_request IS NOT NULL;
CREATE INDEX runs_state ON runs (tenant, state, created_at, id, trigger_name);
