from __future__ import annotations

import dataclasses

import pytest

from ductile.config.model import Route
from ductile.pipeline.graph import Node, Pipeline, Position, build
from ductile.queue.job import Submitter
from ductile.routing.router import Router, Target, following


def route(source: str, event_type: str, target: str) -> Route:
    return Route(source=source, event_type=event_type, target=target)


ROUTER = Router((
    route("scale", "weighed", "zebra"),
    route("scale", "weighed", "analyser"),
    route("scale", "failed", "notify"),
    route("feed", "weighed", "notify"),
    route("scale", "weighed", "mail"),
))


@pytest.mark.parametrize(("event_type", "source", "targets"), [
    ("weighed", "scale", ["zebra", "analyser", "mail"]),
    ("failed", "scale", ["notify"]),
    ("weighed", "feed", ["notify"]),
    ("failed", "feed", []),
    ("Weighed", "scale", []),
    ("weighed", "Scale", []),
    ("weighed ", "scale", []),
    ("weigh", "scale", []),
    ("*", "scale", []),
    ("", "", []),
    ("weighed", None, []),
    ("scale", "weighed", []),
])
def test_an_event_goes_where_its_exact_source_and_type_lead_in_the_order_of_the_configuration(
    event_type: str, source: str | None, targets: list[str]
) -> None:
    assert [dispatch.plugin for dispatch in ROUTER.next(event_type, source)] == targets


def test_a_route_asks_for_the_handle_command_and_for_no_step_of_a_pipeline() -> None:
    assert ROUTER.next("failed", "scale") == (Target(
        plugin="notify", command="handle", submitted_by=Submitter.ROUTE, pipeline_name=None, pipeline_hash=None,
        step_id=None),)


@pytest.mark.parametrize("name", ["*", "sca*", ".*", "scale.weighed", "weighed|failed"])
def test_a_route_has_no_wildcards(name: str) -> None:
    router = Router((route("scale", name, "notify"), route(name, "weighed", "notify")))
    assert router.next("weighed", "scale") == ()
    assert len(router.next(name, "scale")) == 1


def test_a_plugin_may_be_routed_to_itself() -> None:
    assert [found.plugin for found in Router((route("loop", "again", "loop"),)).next("again", "loop")] == ["loop"]


def test_without_routes_nothing_follows() -> None:
    assert Router(()).next("weighed", "scale") == ()


def test_a_router_cannot_be_changed_and_equals_another_of_the_same_routes() -> None:
    assert Router(ROUTER.routes) == ROUTER != Router(ROUTER.routes[:1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROUTER.routes = ()    # type: ignore[misc]


# Pipelines


def pipeline(name: str, on: str | None, links: dict[str, tuple[str, ...]], *entry: str) -> Pipeline:
    """A pipeline of these steps and what follows them; without `entry` it begins with the first of them."""
    nodes = [Node(id=each, plugin=f"{each}-plugin", command="handle", deep_copy=False, next=following)
             for each, following in links.items()]
    return build(name=name, on=on, entry=entry or (nodes[0].id,), nodes=nodes)


WEIGHT = pipeline("weight", "weighed", {"look": ("mail", "note"), "mail": (), "note": ("keep",), "keep": ()})
TWINS = pipeline("twins", "weighed", {"right": (), "left": (), "tail": ()}, "left", "right")
CALLED = pipeline("called", None, {"only": ()})
DEATHS = pipeline("deaths", "ductile.job.dead", {"tell": ()})
BOTH = Router(ROUTER.routes, {each.name: each for each in (WEIGHT, TWINS, CALLED, DEATHS)})


def steps(found: tuple[Target, ...]) -> list[str]:
    """What an event becomes: `pipeline/step` or, for a route, the plugin alone."""
    return [each.plugin if each.step_id is None else f"{each.pipeline_name}/{each.step_id}" for each in found]


def test_an_event_starts_every_entry_step_of_every_pipeline_on_its_type_and_then_the_routes() -> None:
    assert steps(BOTH.next("weighed", "scale")) == [
        "weight/look", "twins/left", "twins/right", "zebra", "analyser", "mail"]


@pytest.mark.parametrize("source", [None, "cli", "webhook:/weight", "nobody"])
def test_an_event_of_any_source_starts_pipelines_and_only_a_plugins_own_takes_its_routes(source: str | None) -> None:
    assert steps(BOTH.next("weighed", source)) == ["weight/look", "twins/left", "twins/right"]


@pytest.mark.parametrize("event_type", [
    "Weighed", "weigh", "weighed ", "*", "", "ductile.job", "ductile.breaker.opened",
])
def test_a_pipeline_takes_its_exact_type_alone(event_type: str) -> None:
    assert BOTH.next(event_type, None) == ()


def test_the_cores_own_event_starts_the_pipeline_that_waits_for_it() -> None:
    assert steps(BOTH.next("ductile.job.dead", None)) == ["deaths/tell"]


def test_a_pipeline_without_a_type_is_started_by_nothing() -> None:
    called = Router((), {"called": CALLED})
    assert [called.next(event_type, None) for event_type in ("None", "", "called")] == [()] * 3


def test_a_step_knows_its_plugin_its_pipeline_and_the_version_of_that() -> None:
    assert BOTH.next("ductile.job.dead", None) == (Target(
        plugin="tell-plugin", command="handle", submitted_by=Submitter.PIPELINE, pipeline_name="deaths",
        pipeline_hash=DEATHS.hash, step_id="tell"),)


@pytest.mark.parametrize(("step_id", "expected"), [
    ("look", ["weight/mail", "weight/note"]), ("note", ["weight/keep"]), ("mail", []), ("keep", []),
])
@pytest.mark.parametrize("event_type", ["anything", "", "ductile.step.succeeded"])
def test_every_event_of_a_step_goes_to_each_step_that_comes_next(
    step_id: str, expected: list[str], event_type: str,
) -> None:
    place = Position(pipeline=WEIGHT, step_id=step_id)
    assert steps(BOTH.next(event_type, "look-plugin", place)) == expected
    assert steps(following(place)) == expected
    assert place.node is WEIGHT.nodes[step_id]


def test_the_next_steps_come_first_then_pipelines_then_routes() -> None:
    assert steps(BOTH.next("weighed", "scale", Position(pipeline=WEIGHT, step_id="look"))) == [
        "weight/mail", "weight/note", "weight/look", "twins/left", "twins/right", "zebra", "analyser", "mail"]


def test_a_place_in_an_older_version_leads_on_in_that_version() -> None:
    older = pipeline("weight", "weighed", {"look": ("old",), "old": ()})
    (first, *others) = BOTH.next("weighed", None, Position(pipeline=older, step_id="look"))
    assert (first.step_id, first.pipeline_hash) == ("old", older.hash)
    assert {each.pipeline_hash for each in others} == {WEIGHT.hash, TWINS.hash}
    assert older.hash != WEIGHT.hash


def test_pipelines_on_the_same_type_start_in_the_order_that_they_have() -> None:
    by_name = {each.name: each for each in (TWINS, WEIGHT)}
    assert steps(Router((), by_name).next("weighed", None)) == ["twins/left", "twins/right", "weight/look"]


def test_routers_of_other_pipelines_differ() -> None:
    assert Router((), {"weight": WEIGHT}) == Router((), {"weight": WEIGHT}) != Router((), {"twins": TWINS})
