"""The garmin plugin against a stand-in for the personal API that enforces its rules."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ductile.protocol import Response
from support import standin, steps
from support.garmin import DAY, KEY, Garmin, activity, ago, sleep, summary, weight

HERE = Path(__file__).resolve().parent


@pytest.fixture
def api() -> Iterator[Garmin]:
    running = Garmin()
    yield running
    running.close()


class Plugin:
    """The plugin with its state between runs, as the daemon keeps it."""

    def __init__(self, api: Garmin, workspace: Path) -> None:
        self.workspace, self.state = workspace, {}
        self.config = {"api_key": KEY, "timezone": "UTC", "base_url": api.url}

    def run(self, command: str = "poll", **options: float) -> Response:
        request = steps.request(self.workspace, self.config, command=command, state=self.state, **options)
        response = steps.run(HERE, request, self.workspace)
        self.state |= response.state_updates
        return response

    def poll(self) -> list[dict]:
        response = self.run()
        assert response.status == "ok", response
        assert {event.type for event in response.events} <= {"new_health_data"}
        return [event.payload for event in response.events]


@pytest.fixture
def plugin(api: Garmin, tmp_path: Path) -> Plugin:
    return Plugin(api, tmp_path)


# What is read

def test_each_kind_is_an_event_in_the_form_of_withings(api, plugin):
    api.days = [summary(ago(1), 9000, moderateIntensityMinutes=10)]
    api.nights = [sleep(ago(0), 27_000), sleep(ago(1), None)]
    api.hrv = [{"calendarDate": ago(0), "lastNightAvg": 48, "weeklyAvg": None}]
    api.weights = [weight(5, ago(0), 80_250.0)]
    api.activities = [activity(77, ago(0))]
    found = {payload["kind"]: payload for payload in plugin.poll()}
    assert found["activity"] == {
        "source": "garmin", "kind": "activity", "id": ago(1), "date": ago(1), "zone": "UTC", "device": None,
        "time": f"{ago(1)}T00:00:00Z", "edited": False,
        "values": [{"metric": "steps", "value": 9000, "unit": ""}, {"metric": "moderate", "value": 600, "unit": "s"}]}
    assert {kind: payload["values"] for kind, payload in found.items() if kind != "activity"} == {
        "sleep": [{"metric": "sleep", "value": 27_000, "unit": "s"}, {"metric": "sleep_score", "value": 81,
                                                                      "unit": ""}],
        "hrv": [{"metric": "hrv", "value": 48, "unit": "ms"}],
        "measure": [{"metric": "weight", "value": 80.25, "unit": "kg"},
                    {"metric": "fat_ratio", "value": 21.5, "unit": "%"}],
        "workout": [{"metric": "duration", "value": 1800.5, "unit": "s"},
                    {"metric": "distance", "value": 5000, "unit": "m"}]}
    # The time is that of the instant, not of the wall clock that is encoded as one.
    assert found["measure"]["time"] == found["sleep"]["time"] == "2025-12-01T06:00:00Z"
    assert (found["workout"]["time"], found["workout"]["name"], found["workout"]["activity"]) == (
        f"{ago(0)}T10:00:00Z", "Run", "running")


def test_the_last_days_are_read_again_and_only_what_changed_is_emitted(api, plugin):
    api.days = [summary(ago(days), 1000 + days) for days in range(60)]
    assert [payload["date"] for payload in plugin.poll()] == [ago(days) for days in range(7, 0, -1)]
    assert plugin.poll() == []
    api.days[0] = summary(ago(0), 5000)
    api.days[2] = summary(ago(2), 7777)
    (late,) = plugin.poll()
    assert (late["date"], late["edited"], late["values"][0]["value"]) == (ago(2), True, 7777)
    assert api.asked[-1].query["startDate"] == ago(3)
    # The first poll of a day goes back further.
    plugin.state["daily"] = ago(1)
    plugin.poll()
    assert {asked.query["startDate"] for asked in api.asked[-5:] if "startDate" in asked.query} == {ago(7)}


def test_a_gap_is_made_up_for_in_spans_that_garmin_allows(api, plugin):
    plugin.state |= {"until": ago(50), "daily": ago(50)}
    api.days = [summary(ago(days), 1000) for days in range(90)]
    found = [payload["date"] for payload in plugin.poll()]
    assert found == [ago(days) for days in range(57, 0, -1)]


def test_many_activities_are_read_page_by_page(api, plugin):
    api.activities = [activity(number, ago(number % 6)) for number in range(45)]
    assert len({payload["id"] for payload in plugin.poll()}) == 45
    assert [asked.query["start"] for asked in api.asked if "start" in asked.query] == ["0", "20", "40"]
    assert len(json.dumps(plugin.state)) < 5000


def test_today_is_the_day_of_the_account(api, plugin):
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        plugin.state, plugin.config["timezone"] = {}, zone
        plugin.run()
        assert api.asked[-1].query["endDate"] == datetime.now(ZoneInfo(zone)).date().isoformat()


def test_more_than_one_answer_can_hold_is_emitted_over_several_polls(api, plugin):
    plugin.state["until"] = ago(77)
    api.weights = [weight(number, ago(number % 70), 80_000) for number in range(600)]
    found = [payload["id"] for _ in range(2) for payload in plugin.poll()]
    assert (len(found), len(set(found))) == (600, 600)


def test_nothing_and_rows_of_another_form_hide_no_others(api, plugin):
    api.nights = None
    api.days = [summary(ago(1), 5), summary("yesterday", 5), summary(ago(2), None), summary(ago(3), True),
                summary(ago(4), 8, privacyProtected=True)]
    api.days[1]["calendarDate"] = f"{ago(1)}T"
    api.missing = {"/hrv-service"}
    response = plugin.run()
    assert [event.payload["date"] for event in response.events] == [ago(1)]
    assert [line.message for line in response.logs] == [
        f"hrv: {api.url} has no such data for this account (404)"]
    assert plugin.run().logs == ()


@pytest.mark.parametrize("wrapped", [lambda row: row, lambda row: {"data": [row]}, lambda row: [[{"x": {"y": row}}]]])
def test_rows_are_found_wherever_they_stand(api, plugin, wrapped):
    plugin.config["kinds"] = ["sleep"]
    row = {"calendarDate": ago(0), "deepSleepSeconds": 5000}
    api.faults = [None, (200, wrapped(row))]
    assert [payload["values"] for payload in plugin.poll()] == [[{"metric": "deep_sleep", "value": 5000, "unit": "s"}]]


# Tokens

def test_a_token_is_kept_until_shortly_before_it_expires(api, plugin):
    plugin.poll()
    plugin.poll()
    assert len(api.tokens) == 1
    plugin.state["expires_at"] = time.time() + 60
    plugin.poll()
    assert len(api.tokens) == 2
    plugin.config["base_url"] += "/"
    plugin.poll()
    assert len(api.tokens) == 3


def test_a_token_that_is_refused_is_replaced_once(api, plugin):
    plugin.poll()
    api.tokens.clear()
    assert plugin.poll() == []
    api.faults = [401, None, 401]
    response = plugin.run()
    assert (response.error, response.retry) == (f"days: {api.url} refuses the access (401)", False)


def test_a_key_that_is_refused_asks_the_operator_for_another(api, plugin):
    plugin.config["api_key"] = "other"
    for command in ("poll", "health"):
        response = plugin.run(command)
        assert response.error.endswith("refuses the API key (401): it may have expired; create another in Garmin "
                                       "Connect")
        assert not response.retry


def test_health_asks_garmin_and_keeps_nothing(api, plugin):
    response = plugin.run("health")
    assert (response.result, response.state_updates) == ("Garmin accepts the key; read until never", {})


def test_a_token_that_is_none_is_never_sent_on(api, plugin):
    for text in ("<html>", "a b.c.d", "", "é.b.c"):
        api.faults = [(200, text)]
        assert plugin.run().retry
    assert {asked.method for asked in api.asked} == {"POST"}
    # Without a time it is used now and not kept.
    api.tokens.add("a.b.c")
    api.faults = [(200, "a.b.c")]
    plugin.poll()
    assert plugin.state["expires_at"] <= time.time()


# What goes wrong

@pytest.mark.parametrize("fault", [*standin.PASSING, standin.HTML])
@pytest.mark.parametrize("calls_before", [0, 3])
def test_what_may_pass_is_retried_and_changes_nothing(api, plugin, fault, calls_before):
    api.days = [summary(ago(1), 5)]
    api.faults = [*[None] * calls_before, fault]
    response = plugin.run(seconds_left=1.1)
    assert (response.status, response.retry, response.events) == ("error", True, ())
    assert set(response.state_updates) <= {"not_before"}
    plugin.state.clear()
    api.faults.clear()
    assert len(plugin.poll()) == 1


def test_a_server_that_is_not_there_is_tried_again(plugin):
    with standin.refusing() as url:
        plugin.config["base_url"] = url
        assert plugin.run().retry


@pytest.mark.parametrize(("headers", "wait"), [({"Retry-After": "14"}, 14), ({}, 900), ({"Retry-After": "9" * 9}, DAY)])
def test_a_limit_is_respected_for_as_long_as_it_says(api, plugin, headers, wait):
    api.faults = [None, (429, "", headers)]
    assert plugin.run().retry
    assert abs(plugin.state["not_before"] - time.time() - wait) < 5
    asked = len(api.asked)
    assert (plugin.run().retry, len(api.asked)) == (True, asked)
    # The clock was set back.
    plugin.state["not_before"] = time.time() + 40 * DAY
    assert plugin.poll() == []


def test_a_redirect_to_another_origin_gets_nothing(api, plugin):
    with standin.serving(lambda asked: (200, "a.b.c")) as other:
        for before in ([], [None]):
            api.faults = [*before, (302, "", {"Location": other.url})]
            assert plugin.run().status == "error"
        assert other.asked == []


@pytest.mark.parametrize("config", [{"kinds": ["steps"]}, {"timezone": "Mars/Base"}, {"timezone": "../etc/passwd"},
                                    {"api_key": "a b"}, {"first_days": 85}, {"base_url": "ftp://x"}])
def test_a_wrong_configuration_is_an_error(api, plugin, config):
    plugin.config |= config
    assert (plugin.run().retry, api.asked) == (False, [])


def test_it_runs_as_a_process(api, plugin, tmp_path):
    api.weights = [weight(1, datetime.now(UTC).date().isoformat(), 80_000)]
    request = steps.request(tmp_path, plugin.config, command="poll")
    assert len(steps.run_process(HERE, request, tmp_path).events) == 1
