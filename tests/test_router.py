from __future__ import annotations

import dataclasses

import pytest

from ductile.config.schema import Route
from ductile.queue.job import Submitter
from ductile.router import Dispatch, Router


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
    assert ROUTER.next("failed", "scale") == (Dispatch(
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
