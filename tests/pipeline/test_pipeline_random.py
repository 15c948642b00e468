"""Random pipelines, compiled, against an interpreter of what their author wrote that knows no graph."""

from __future__ import annotations

import json
import random
from typing import Any

from pipeline.pipeline_files import compile_files, paths

ROUNDS = 200
NAMES = ("a", "b", "c", "d")


class Joined(Exception):
    """A step would have to wait for branches."""


class Interpreter:
    """Walks the authored form as if each event were one runner that copies itself at a split."""

    def __init__(self, pipelines: dict[str, Any]) -> None:
        self.pipelines = pipelines

    def run(self, name: str) -> list[list[tuple]]:
        """Return what each runner has met, in order. Raises Joined."""
        met, _ = self.sequence(self.pipelines[name]["steps"], [[]], "", [])
        return met

    def sequence(self, steps: list[dict], runners: list[list], prefix: str, place: list[int]) -> tuple[list, bool]:
        """Send the runners through steps; say whether they have parted."""
        parted = False
        for number, step in enumerate(steps, 1):
            if parted:
                raise Joined
            runners, parted = self.step(step, runners, prefix, [*place, number])
        return runners, parted

    def step(self, step: dict, runners: list[list], prefix: str, place: list[int]) -> tuple[list, bool]:
        if "steps" in step:
            return self.sequence(step["steps"], runners, prefix, place)
        if "split" in step:
            copies = []
            for number, branch in enumerate(step["split"], 1):
                copies += self.step(branch, [list(met) for met in runners], prefix, [*place, number])[0]
            return copies, True
        made_up = ".".join([step.get("uses") or step["call"], *map(str, place)])
        name = prefix + step.get("id", made_up)
        if "call" in step:
            return self.sequence(self.pipelines[step["call"]]["steps"], runners, name + "/", [])
        visit = (name, step["uses"], step.get("command", "handle"), "workspace" in step)
        return [[*met, visit] for met in runners], False


class Author:
    """Writes pipelines; each may call those after it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ids = 0

    def pipelines(self) -> dict[str, Any]:
        return {name: {"name": name, "steps": self.steps(NAMES[index + 1:], 0)} for index, name in enumerate(NAMES)}

    def steps(self, callable_: tuple[str, ...], depth: int) -> list[dict]:
        steps = [self.step(callable_, depth) for _ in range(self.chance.randint(1, 3))]
        # Mostly where it is allowed, so that enough of the pipelines are good.
        if self.chance.random() < 0.3:
            place = len(steps) if self.chance.random() < 0.9 else self.chance.randrange(len(steps))
            steps.insert(place, self.with_id({"split": self.steps(callable_, depth + 1)}))
        return steps

    def step(self, callable_: tuple[str, ...], depth: int) -> dict:
        kind = self.chance.random()
        if kind < 0.2 and callable_:
            return self.with_id({"call": self.chance.choice(callable_)})
        if kind < 0.4 and depth < 3:
            return self.with_id({"steps": self.steps(callable_, depth + 1)})
        step = {"uses": self.chance.choice(["echo", "note"])}
        if self.chance.random() < 0.2:
            step["command"] = {"echo": "poll", "note": "tidy"}[step["uses"]]
        if self.chance.random() < 0.2:
            step["workspace"] = "copy"
        return self.with_id(step)

    def with_id(self, step: dict) -> dict:
        self.ids += 1
        return {"id": f"s{self.ids}", **step} if self.chance.random() < 0.4 else step


def interpreted(pipelines: dict[str, Any]) -> dict[str, list] | None:
    """Return every path of every pipeline, or None where one of them has a step after a split."""
    interpreter = Interpreter(pipelines)
    try:
        return {name: interpreter.run(name) for name in pipelines}
    except Joined:
        return None


def test_every_path_through_the_graph_is_one_that_the_author_wrote(tmp_path):
    chance = random.Random(0)
    good = 0
    for pipelines in (Author(chance).pipelines() for _ in range(ROUNDS)):
        result, lines = compile_files(
            tmp_path, {"p.yaml": json.dumps({"pipelines": list(pipelines.values())})}, max_hops=10_000)
        expected = interpreted(pipelines)
        assert (lines == []) == (expected is not None), (pipelines, lines)
        if expected is None:
            # A step after a split is the only fault there is.
            assert all(": expected no step after " in line for line in lines)
            continue
        good += 1
        found = {name: [[(node.id, node.plugin, node.command, node.deep_copy) for node in path]
                        for path in paths(pipeline)] for name, pipeline in result.pipelines.items()}
        assert found == expected
        for name, pipeline in result.pipelines.items():
            assert list(dict.fromkeys(visit[0] for path in expected[name] for visit in path)) == list(pipeline.nodes)
    # Enough of both kinds for the comparison to mean something.
    assert ROUNDS // 4 < good < ROUNDS
