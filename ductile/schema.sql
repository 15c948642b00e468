-- The ledger, version 1. Times are UTC text, YYYY-MM-DDTHH:MM:SS.mmmZ; ids are UUIDs; JSON is text.
-- A later version is a file migrations/NNNN.sql that starts from here; this file is not edited again.

CREATE TABLE event_context (
    id               TEXT NOT NULL PRIMARY KEY,
    parent_id        TEXT REFERENCES event_context (id),
    pipeline_name    TEXT,
    step_id          TEXT,
    hop              INTEGER NOT NULL,
    accumulated_json TEXT NOT NULL,
    created_at       TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX event_context_parent ON event_context (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE job_queue (
    seq              INTEGER PRIMARY KEY,            -- the order of the queue; a retry keeps its place
    id               TEXT NOT NULL UNIQUE,
    plugin           TEXT NOT NULL,
    command          TEXT NOT NULL,
    payload          TEXT,                           -- the event, for a job that carries one
    status           TEXT NOT NULL
                     CHECK (status IN ('queued', 'running', 'succeeded', 'dead', 'deduped')),
    attempt          INTEGER NOT NULL CHECK (attempt >= 1),
    max_attempts     INTEGER NOT NULL,
    submitted_by     TEXT NOT NULL
                     CHECK (submitted_by IN ('scheduler', 'webhook', 'route', 'pipeline', 'cli', 'init', 'replay')),
    dedupe_key       TEXT,
    created_at       TEXT NOT NULL,
    started_at       TEXT,                           -- of the latest attempt
    completed_at     TEXT,                           -- null until the status is a last one
    next_retry_at    TEXT,
    last_error       TEXT,
    parent_job_id    TEXT REFERENCES job_queue (id),
    root_job_id      TEXT NOT NULL,
    source_event_id  TEXT,
    event_context_id TEXT REFERENCES event_context (id),
    pipeline_name    TEXT,
    pipeline_hash    TEXT,
    step_id          TEXT,
    replay_of        TEXT,
    CHECK ((completed_at IS NULL) = (status IN ('queued', 'running')))
);

-- Claim: the first job of each plugin that may run now.
CREATE INDEX job_queue_ready ON job_queue (plugin, seq) WHERE status = 'queued' AND next_retry_at IS NULL;
-- The next retry that falls due.
CREATE INDEX job_queue_retry ON job_queue (next_retry_at) WHERE status = 'queued' AND next_retry_at IS NOT NULL;
-- Crash recovery.
CREATE INDEX job_queue_running ON job_queue (seq) WHERE status = 'running';
-- Poll guard and queue depth.
CREATE INDEX job_queue_open ON job_queue (plugin, command, submitted_by) WHERE completed_at IS NULL;
-- Pruning, and totals for `status`.
CREATE INDEX job_queue_ended ON job_queue (completed_at, status) WHERE completed_at IS NOT NULL;
CREATE INDEX job_queue_dedupe ON job_queue (dedupe_key, plugin, command) WHERE dedupe_key IS NOT NULL;
-- Whole chains, for pruning and `inspect`.
CREATE INDEX job_queue_root ON job_queue (root_job_id);
CREATE INDEX job_queue_parent ON job_queue (parent_job_id) WHERE parent_job_id IS NOT NULL;
CREATE INDEX job_queue_context ON job_queue (event_context_id) WHERE event_context_id IS NOT NULL;

CREATE TABLE job_log (
    seq              INTEGER PRIMARY KEY,            -- the order in which attempts ended
    id               TEXT NOT NULL,
    job_id           TEXT NOT NULL REFERENCES job_queue (id),
    attempt          INTEGER NOT NULL,
    plugin           TEXT NOT NULL,
    command          TEXT NOT NULL,
    status           TEXT NOT NULL
                     CHECK (status IN ('succeeded', 'failed', 'timed_out', 'orphaned', 'interrupted')),
    submitted_by     TEXT NOT NULL,
    created_at       TEXT NOT NULL,                  -- of the job
    started_at       TEXT,
    completed_at     TEXT NOT NULL,
    exit_code        INTEGER,
    last_error       TEXT,
    stderr           TEXT,
    result           TEXT,                           -- the response, JSON
    printed          TEXT,                           -- standard output that was not a response
    parent_job_id    TEXT,
    source_event_id  TEXT
);

CREATE INDEX job_log_job ON job_log (job_id, attempt);
CREATE INDEX job_log_plugin ON job_log (plugin, seq);

CREATE TABLE plugin_state (
    plugin_name TEXT NOT NULL PRIMARY KEY,
    state       TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE schedule_entries (
    plugin      TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    base_at     TEXT NOT NULL,                       -- the grid, without jitter
    next_run_at TEXT NOT NULL,
    last_run_at TEXT,
    last_job_id TEXT,
    anchor      TEXT NOT NULL,                       -- local time of the grid's origin, for calendar steps
    rule        TEXT NOT NULL,                       -- what the grid was made from; another text starts a new one
    held_reason TEXT,                                -- why a due run does not start, or why the last was skipped
    PRIMARY KEY (plugin, schedule_id)
) WITHOUT ROWID;

CREATE TABLE plugin_inits (
    plugin      TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,                       -- of the version and the resolved configuration
    ok          INTEGER NOT NULL,
    job_id      TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE plugin_loads (
    plugin      TEXT NOT NULL PRIMARY KEY,           -- each configured plugin, as the daemon last read it
    version     TEXT,
    enabled     INTEGER NOT NULL,
    needs_init  TEXT,                                -- the fingerprint that init must have succeeded for
    reason      TEXT,                                -- why it is not loaded; null where it is
    updated_at  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE circuit_breakers (
    plugin        TEXT NOT NULL,
    command       TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failure_count INTEGER NOT NULL,
    opened_at     TEXT,
    updated_at    TEXT NOT NULL,
    PRIMARY KEY (plugin, command)
) WITHOUT ROWID;

CREATE TABLE pipeline_versions (
    hash          TEXT NOT NULL PRIMARY KEY,
    name          TEXT NOT NULL,
    definition    TEXT NOT NULL,                     -- canonical JSON
    first_seen_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE artifacts (
    job_id   TEXT NOT NULL REFERENCES job_queue (id),
    path     TEXT NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest   TEXT NOT NULL,
    PRIMARY KEY (job_id, path)
) WITHOUT ROWID;

CREATE TABLE config_loads (
    id        INTEGER PRIMARY KEY,
    loaded_at TEXT NOT NULL,
    hash      TEXT NOT NULL,                         -- BLAKE3 of the files read, without variables
    ok        INTEGER NOT NULL,
    errors    TEXT,                                  -- a line each; null where there were none
    changes   TEXT,                                  -- what it changed, a line each; null where nothing or refused
    listen    TEXT                                   -- where webhooks are taken from then on; null where nowhere
);
