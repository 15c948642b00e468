-- Version 2: which jobs tell of a death or a breaker, so that what follows from one of these raises no other.

-- The core's own event that the job's chain tells of; null elsewhere.
ALTER TABLE job_queue ADD COLUMN core_event TEXT;
