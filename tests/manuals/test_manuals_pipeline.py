"""The manual of pipelines has every key, every limit and every event of the core."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ductile import protocol
from ductile.config.model import BreakerRule, Retry
from ductile.dispatch.conclude import Before, Rules, conclude
from ductile.dispatch.outcome import Failed, Outcome, Succeeded
from ductile.pipeline import compiler, files
from ductile.pipeline.graph import Node, build
from ductile.pipeline.spec import PipelineFile, read_specs
from ductile.queue.job import Job, Status, Submitter
from ductile.routing.router import Router
from ductile.scheduler.breaker import Breaker
from ductile.yamlfile import Document
from support.clock import START
from support.ledger import ids
from support.manuals import MAN, parts, section
from support.recording import Recorder
from support.worlds import NO_ROUTING

PAGE = "ductile-pipeline.7"
ROOT = Path(__file__).resolve().parents[2]
JOB = Job(
    seq=1, id="j1", plugin="echo", command="poll", payload=None, status=Status.RUNNING, attempt=1, max_attempts=1,
    submitted_by=Submitter.SCHEDULER, dedupe_key=None, created_at=START, started_at=START, completed_at=None,
    next_retry_at=None, last_error=None, parent_job_id=None, root_job_id="j1", source_event_id=None,
    event_context_id=None, pipeline_name=None, pipeline_hash=None, step_id=None, replay_of=None, core_event=None,
)


class Chance:
    def uniform(self, a: float, b: float) -> float:
        return a


def tags(part: str) -> set[str]:
    return {entry.names[0] for entry in section(PAGE, "KEYS", part).entries}


def test_every_key_of_a_pipeline_and_of_its_steps_is_explained() -> None:
    value = Recorder.of({"name": "x", "steps": [{"uses": "echo"}]})
    read_specs(PipelineFile(name="x", document=Document(value=value, problems=(), positions={}, key_positions={})))
    # Asked for to tell a misspelt one: a list's, not a pipeline's.
    assert tags("A pipeline") == value.asked - {"pipelines"}
    assert tags("A step") == value["steps"][0].asked
    assert tags("A list") == {"pipelines"}


def told(before: Breaker, outcome: Outcome, event_type: str) -> Any:
    """Return the payload of the core's own event that the end of a scheduled job raises."""
    node = Node(id="tell", plugin="notify", command="handle", deep_copy=False, next=())
    pipeline = build(name="tell", on=event_type, entry=("tell",), nodes=[node])
    routing = replace(NO_ROUTING, router=Router((), {"tell": pipeline}))
    rules = Rules(retry=Retry(), breaker=BreakerRule(threshold=3), fingerprint=None, routing=routing)
    found = conclude(JOB, outcome, Before(state={}, breaker=before, interruptions=0), rules, now=START, rng=Chance(),
                     new_id=ids())
    [following] = found.jobs
    return json.loads(following.job.payload)["payload"]


@pytest.mark.parametrize(("event_type", "before", "outcome"), [
    (protocol.JOB_DEAD, Breaker(state="closed", failure_count=0, opened_at=None), Failed(error="down")),
    (protocol.BREAKER_OPENED, Breaker(state="closed", failure_count=2, opened_at=None), Failed(error="down")),
    (protocol.BREAKER_OPENED, Breaker(state="half_open", failure_count=3, opened_at=START), Failed(error="down")),
    (protocol.BREAKER_CLOSED, Breaker(state="half_open", failure_count=3, opened_at=START), Succeeded()),
])
def test_an_event_of_the_core_has_the_payload_that_is_explained(event_type, before, outcome) -> None:
    payload = told(before, outcome, event_type)
    assert [entry.tag for entry in section(PAGE, "CORE EVENTS", event_type).entries] == list(payload)
    assert (payload["error"], payload.get("failures")) in {("down", None), ("down", 3), ("down", 4), (None, 0)}


def test_every_event_of_the_core_is_explained() -> None:
    assert set(parts(PAGE, "CORE EVENTS")) == {*protocol.ANNOUNCED, protocol.STEP_SUCCEEDED}


def test_every_limit_of_pipelines_is_the_one_that_is_told() -> None:
    text = " ".join((MAN / PAGE).read_text().split())
    for told_limit in (
        f"more than {compiler.MOST_NODES} steps in one pipeline, with calls expanded",
        f"a file over {files.PIPELINES_LIMIT_BYTES // 1024**2} MiB",
    ):
        assert told_limit in text


def test_the_only_deep_copy_is_the_word_that_is_told() -> None:
    [workspace] = [entry for entry in section(PAGE, "KEYS", "A step").entries if entry.names[0] == "workspace"]
    tree = ast.parse((ROOT / "ductile" / "pipeline" / "spec.py").read_text())
    [function] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_as_deep_copy"]
    [compared] = [node.comparators[0].value for node in ast.walk(function) if isinstance(node, ast.Compare)]
    assert workspace.tag == f"workspace: {compared}"
