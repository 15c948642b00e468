-- Version 3: cancelling a running job, pausing a plugin, schedules that tell of silence, and a daemon one can wait for.

-- The schedule that a job was submitted for; null for any other job.
ALTER TABLE job_queue ADD COLUMN schedule_id TEXT;
-- When an operator asked to cancel the job while it ran; null elsewhere.
ALTER TABLE job_queue ADD COLUMN cancel_requested_at TEXT;
-- Open jobs in the order of the queue: `queue`, the queue depth, the oldest waiting.
CREATE INDEX job_queue_open_seq ON job_queue (seq) WHERE completed_at IS NULL;

ALTER TABLE schedule_entries ADD COLUMN last_success_at TEXT;
-- Since when the schedule's `alert_after` has been in force; null where there is none.
ALTER TABLE schedule_entries ADD COLUMN alert_since TEXT;
-- When the schedule was found overdue; null while it is not.
ALTER TABLE schedule_entries ADD COLUMN overdue_at TEXT;

-- The commands of the manifest that the daemon loaded, a JSON list; null where the plugin is not loaded.
ALTER TABLE plugin_loads ADD COLUMN commands TEXT;

CREATE TABLE paused_plugins (
    plugin TEXT NOT NULL PRIMARY KEY,
    since  TEXT NOT NULL
) WITHOUT ROWID;

-- The latest run of the daemon, in one row; `ready_at` is null until it is ready.
CREATE TABLE daemon_run (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    pid        INTEGER NOT NULL,
    version    TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ready_at   TEXT
);
