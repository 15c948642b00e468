-- Version 4: indexes by which `ductilectl jobs`, `logs` and `status` find what an operator asks for.

-- Ended jobs of a plugin, of a pipeline (with its open ones), and those that did not succeed, by when they ended.
CREATE INDEX job_queue_plugin_ended ON job_queue (plugin, status, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX job_queue_pipeline ON job_queue (pipeline_name, status, completed_at) WHERE pipeline_name IS NOT NULL;
CREATE INDEX job_queue_unsuccessful ON job_queue (status, completed_at) WHERE status IN ('dead', 'deduped');
-- Attempts by when they ended; the start beside it makes the busy share a walk along the index.
CREATE INDEX job_log_completed ON job_log (completed_at, started_at);
CREATE INDEX job_log_failed ON job_log (seq) WHERE status != 'succeeded';
