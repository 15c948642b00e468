"""The core's own events: what no plugin may emit."""

from __future__ import annotations

JOB_DEAD = "ductile.job.dead"
BREAKER_OPENED = "ductile.breaker.opened"
BREAKER_CLOSED = "ductile.breaker.closed"

# What a pipeline may wait for.
ANNOUNCED = (JOB_DEAD, BREAKER_OPENED, BREAKER_CLOSED)

# What a step's success is called where it emitted nothing itself; for the next step alone.
STEP_SUCCEEDED = "ductile.step.succeeded"

# Where they come from.
SOURCE = "ductile"
