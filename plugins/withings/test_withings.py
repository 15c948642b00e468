"""The withings plugin against a stand-in for the API that enforces its rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

from ductile.protocol import Response
from support import standin, steps
from support.notified import ENVIRON
from support.withings import CALLBACK, CLIENT, Withings, day, group, night

HERE = Path(__file__).resolve().parent
DAY, HOUR = 86_400, 3600


@pytest.fixture
def api() -> Iterator[Withings]:
    running = Withings()
    yield running
    running.close()


class Plugin:
    """The plugin with its state between runs, as the daemon keeps it."""

    def __init__(self, api: Withings, workspace: Path, **config: object) -> None:
        self.api, self.workspace = api, workspace
        self.config = {**CLIENT, "base_url": api.url, **config}
        self.state = api.state()

    def run(self, command: str = "poll", payload: object = None, **options: float) -> Response:
        request = steps.request(self.workspace, self.config, payload, command=command, state=self.state, **options)
        response = steps.run(HERE, request, self.workspace)
        self.state |= response.state_updates
        return response

    def poll(self) -> list[dict]:
        """Poll twice if the token has to be renewed first; return the payloads of the events."""
        response = self.run()
        if [event.type for event in response.events] == ["withings.token"]:
            response = self.run("handle", response.events[0].payload)
        assert response.status == "ok", response
        assert {event.type for event in response.events} <= {"new_health_data"}
        return [event.payload for event in response.events]

    def expire(self) -> None:
        self.state["expires_at"] = 0


@pytest.fixture
def plugin(api: Withings, tmp_path: Path) -> Plugin:
    return Plugin(api, tmp_path)


def today(days: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


# What is read

def test_a_group_is_an_event_with_exact_values(api, plugin):
    at = time.time() - HOUR
    api.groups = [group(9_007_199_254_740_993, at, (1, 80_123, -3), (6, 215, -1), (999, 5, 0), (173, 61, 0))]
    api.groups[0]["measures"][3]["position"] = 4
    response = plugin.run()
    (event,) = response.events
    assert event.dedupe_key == f"withings:measures:9007199254740993:{int(at)}"
    assert event.payload == {
        "source": "withings", "kind": "measure", "id": "9007199254740993", "zone": "Europe/Berlin", "device": "Body+",
        "time": datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "edited": False,
        "date": event.payload["date"],
        "values": [{"metric": "weight", "value": 80.123, "unit": "kg"},
                   {"metric": "fat_ratio", "value": 21.5, "unit": "%"}, {"metric": "type_999", "value": 5, "unit": ""},
                   {"metric": "fat_free_mass_right_foot", "value": 61, "unit": "kg"}]}


def test_the_first_poll_reads_a_week_and_the_next_only_what_is_new(api, plugin):
    now = time.time()
    # Newest first, on several pages.
    api.groups = [group(number, now - 60 - number * DAY, (1, 80, 0)) for number in range(1, 30)]
    assert [payload["id"] for payload in plugin.poll()] == ["6", "5", "4", "3", "2", "1"]
    assert plugin.poll() == []
    # A scale that was offline for a fortnight delivers an old measure now.
    api.groups.append(group(77, now, (1, 81, 0), date=int(now - 14 * DAY)))
    (late,) = plugin.poll()
    assert (late["id"], late["time"] < today(-13)) == ("77", True)
    assert len(json.dumps(plugin.state)) < 2000


def test_a_group_that_changed_is_emitted_as_edited(api, plugin):
    now = time.time()
    api.groups = [group(1, now - 60, (1, 80, 0)), group(2, now - 60, (11, 60, 0))]
    assert [payload["edited"] for payload in plugin.poll()] == [False, False]
    api.groups[0] = api.groups[0] | {"modified": int(now), "measures": [{"type": 1, "value": 79, "unit": 0}]}
    (edit,) = plugin.poll()
    assert (edit["id"], edit["edited"], edit["values"][0]["value"]) == ("1", True, 79)


def test_a_measure_of_an_uncertain_user_is_marked_and_one_of_the_sign_up_left_out(api, plugin):
    api.groups = [group(1, time.time(), (1, 80, 0), attrib=1), group(2, time.time(), (1, 80, 0), attrib=4),
                  group(3, time.time(), (1, 80, 0), attrib=2, deviceid=None, model=None)]
    found = {payload["id"]: payload for payload in plugin.poll()}
    assert (set(found), found["1"]["ambiguous"], found["3"]["device"]) == ({"1", "3"}, True, None)


def test_a_day_is_emitted_once_it_has_ended_and_again_when_it_changes(api, plugin):
    now = time.time()
    # Two days off, whatever the zone.
    over, on_going = today(-2), today(2)
    api.days = [day(over, now - 90, 5000), day(on_going, now, 10)]
    (first,) = plugin.poll()
    assert (first["kind"], first["date"], first["id"], first["device"]) == ("activity", over, f"{over}|d2", "Steel HR")
    assert first["values"] == [{"metric": "steps", "value": 5000, "unit": ""}]
    api.days = [day(over, now, 5200), day(on_going, now, 900)]
    (second,) = plugin.poll()
    assert (second["date"], second["edited"], second["values"][0]["value"]) == (over, True, 5200)
    # The day that is held back stays within reach, whatever came after it.
    api.days = [day(on_going, now - 10, 900), day(over, now + 7200, 5200)]
    assert plugin.poll() == []
    assert plugin.state["cursors"]["activity"] < now - 10


def test_a_night_is_emitted_as_it_is_filed_and_not_before_it_is_complete(api, plugin):
    now = time.time()
    api.nights = [night(5, now - HOUR, "2026-11-30", 27_000),
                  night(6, now - 60, "2026-12-01", 100, completed=False),
                  night(7, now - 3 * DAY, "2026-11-28", 900, completed=False)]
    found = plugin.poll()
    assert [(payload["id"], payload["date"], payload["device"]) for payload in found] == [
        ("7", "2026-11-28", "sleep monitor"), ("5", "2026-11-30", "sleep monitor")]
    assert {"metric": "sleep", "value": 27_000, "unit": "s"} in found[1]["values"]
    api.nights[1] = night(6, now - 60, "2026-12-01", 26_000)
    assert [payload["id"] for payload in plugin.poll()] == ["6"]


def test_many_rows_are_emitted_over_several_polls_and_none_twice(api, plugin):
    now = time.time() - 2 * HOUR
    api.page = 1000
    api.groups = [group(number, now, (1, 80, 0)) for number in range(400)]
    found = [payload["id"] for _ in range(3) for payload in plugin.poll()]
    assert (len(found), len(set(found))) == (400, 400)
    assert len(json.dumps(plugin.state)) < 60_000


def test_rows_that_nobody_understands_hide_no_others(api, plugin):
    now = time.time()
    api.groups = [group(1, now, (1, 80, 0)), {"modified": int(now)}, group(2, now, (1, 80, 10_000_000)),
                  group(3, now, (1, 8, 0), modified=10**15)]
    assert [payload["id"] for payload in plugin.poll()] == ["1", "3"]
    assert plugin.state["cursors"]["measures"] < now
    api.groups = [group(4, now + 1, (1, 80, 0))]
    assert [payload["id"] for payload in plugin.poll()] == ["4"]


# Tokens

def test_a_renewed_token_is_stored_before_a_job_of_its_own_uses_it(api, plugin):
    api.groups = [group(1, time.time(), (1, 80, 0))]
    plugin.expire()
    response = plugin.run()
    (event,) = response.events
    assert (event.type, event.payload) == ("withings.token", {"renewed": 1})
    assert response.state_updates["previous_refresh_token"] == "refresh-1"
    assert api.paths == ["/v2/oauth2"]
    assert [each.payload["id"] for each in plugin.run("handle", event.payload).events] == ["1"]
    assert "refresh-1" not in api.refresh


def test_a_run_that_is_killed_after_its_refresh_repeats_it(api, plugin):
    plugin.expire()
    before = dict(plugin.state)
    plugin.run()
    # Nothing of the answer arrived.
    plugin.state = before
    assert plugin.poll() == []
    assert plugin.state["refresh_token"] == "refresh-3"


def test_the_token_before_is_tried_where_the_latest_is_refused(api, plugin):
    plugin.expire()
    plugin.state |= {"refresh_token": "lost", "previous_refresh_token": plugin.state["refresh_token"]}
    assert plugin.poll() == []
    assert [asked.form.get("refresh_token") for asked in api.asked[:2]] == ["lost", "refresh-1"]


def test_an_authorization_that_has_ended_asks_the_operator_for_another(api, plugin):
    plugin.expire()
    api.refresh.clear()
    assert plugin.run().error == (
        f"not authorized ({api.url} answered status 503: Invalid Params: invalid refresh_token ***): "
        "run plugins/withings/authorize, see the README of the plugin")
    plugin.state = {}
    for command in ("poll", "health"):
        response = plugin.run(command)
        assert (response.status, response.retry) == ("error", False)


def test_a_token_that_is_refused_is_renewed_once(api, plugin):
    api.access.clear()
    response = plugin.run()
    assert [event.payload for event in response.events] == [{"renewed": 1}]
    api.access.clear()
    response = plugin.run("handle", {"renewed": 1})
    assert [event.payload for event in response.events] == [{"renewed": 2}]
    api.access.clear()
    assert plugin.run("handle", {"renewed": 2}).error == (
        "Withings refuses a token that it has just issued: authorize again")


def test_health_says_whether_it_is_authorized_and_asks_nobody(api, plugin):
    assert re.fullmatch(r"authorized as user 7, the access token is for 1\d\d min more", plugin.run("health").result)
    assert api.asked == []


# What goes wrong

@pytest.mark.parametrize("fault", [*standin.PASSING, standin.HTML])
def test_what_may_pass_is_retried_and_changes_nothing(api, plugin, fault):
    api.groups = [group(1, time.time(), (1, 80, 0))]
    # The second of three calls.
    api.faults = [None, fault]
    response = plugin.run(seconds_left=1.2)
    assert (response.status, response.retry, response.events) == ("error", True, ())
    assert set(response.state_updates) <= {"not_before"}
    plugin.state.pop("not_before", None)
    api.faults.clear()
    assert [payload["id"] for payload in plugin.poll()] == ["1"]


def test_a_server_that_is_not_there_is_tried_again(plugin):
    with standin.refusing() as url:
        plugin.config["base_url"] = url
        assert (plugin.run().retry, plugin.run().status) == (True, "error")


@pytest.mark.parametrize(("limit", "wait"), [((429, "", {"Retry-After": "900"}), 900), (429, 60), (None, 60)])
def test_a_limit_is_respected_for_as_long_as_it_says(api, plugin, limit, wait):
    api.faults, api.statuses = [limit], [601]
    response = plugin.run()
    assert (response.status, response.retry) == ("error", True)
    assert abs(plugin.state["not_before"] - time.time() - wait) < 5
    plugin.run()
    assert len(api.asked) == 1
    # The clock was set back.
    plugin.state["not_before"], api.statuses = time.time() + 40 * DAY, []
    assert plugin.run().status == "ok"


@pytest.mark.parametrize(("status", "retry"), [(503, False), (2554, False), (293, False), (522, True), (2556, True),
                                               (424242, True)])
def test_a_status_says_whether_another_attempt_makes_sense(api, plugin, status, retry):
    api.statuses = [status]
    response = plugin.run()
    assert (response.status, response.retry) == ("error", retry)
    assert f"{api.url} answered status {status}: no Bearer ***" in response.error
    assert (response.error.startswith("measures: "), plugin.state.get("cursors")) == (not retry, None)


@pytest.mark.parametrize("body", [[], {}, {"status": "0"}, {"status": 0}, {"status": 0, "body": {"measuregrps": {}}}])
def test_an_answer_of_another_form_is_retried(api, plugin, body):
    api.faults = [(200, body)]
    assert (plugin.run().retry, plugin.state.get("cursors")) == (True, None)


def test_pages_without_an_end_are_not_read_for_ever(api, plugin):
    body = {"status": 0, "body": {"measuregrps": [], "more": 1, "offset": 2}}
    api.faults = [(200, body)] * 3
    assert plugin.run().retry
    assert len(api.asked) == 2


def test_a_redirect_to_another_origin_gets_nothing(api, plugin):
    with standin.serving(lambda asked: (200, {"status": 0, "body": {}})) as other:
        for status in (302, 307):
            api.faults = [(status, "", {"Location": f"{other.url}/measure"})]
            assert plugin.run().status == "error"
        assert other.asked == []


@pytest.mark.parametrize("config", [{"kinds": []}, {"kinds": ["x"]}, {"first_days": -1}, {"base_url": "x"},
                                    {"client_id": ""}, {"other": 1}])
def test_a_wrong_configuration_is_an_error(api, plugin, config):
    plugin.config |= config
    assert (plugin.run().retry, api.asked) == (False, [])


# As a process

def test_it_runs_as_a_process(api, plugin, tmp_path):
    api.groups = [group(1, time.time(), (1, 80, 0))]
    request = steps.request(tmp_path, plugin.config, command="poll", state=plugin.state)
    assert len(steps.run_process(HERE, request, tmp_path).events) == 1


def authorize(api: Withings, *options: str, answer: str = "code={code}&state={state}", late: float = 0,
              stdin: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command, and be the browser."""
    callback = "https://ductile.example/cb" if stdin else CALLBACK.replace("8089", "{port}")
    with standin.refusing() as free:
        callback = callback.format(port=free.rpartition(":")[2])
    code = api.authorized()
    api.ahead += late
    process = subprocess.Popen(
        [HERE / "authorize", "--base-url", api.url, "--authorize-url", f"{api.url}/authorize", "--callback", callback,
         *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRON | {"WITHINGS_CLIENT_ID": CLIENT["client_id"], "WITHINGS_CLIENT_SECRET": CLIENT["client_secret"]})
    lines = []
    while not lines or not lines[-1].strip().startswith(api.url):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    question = parse_qs(urlsplit(lines[-1].strip()).query)
    assert (question["redirect_uri"], question["scope"]) == ([callback], ["user.metrics,user.activity"])
    url = f"{callback}?{answer.format(code=code, state=question['state'][0])}"
    if stdin:
        process.stdin.write(f"{url}\n")
    else:
        process.stderr.readline(), process.stderr.readline()
        with urlopen(url, timeout=10) as page:
            assert page.status == 200
    out, err = process.communicate(timeout=20)
    return subprocess.CompletedProcess([], process.returncode, out, "".join(lines) + err)


def test_authorizing_prints_the_state_and_keeps_what_was_read(api, plugin, tmp_path, monkeypatch):
    monkeypatch.setattr("support.withings.CALLBACK", "https://ductile.example/cb")
    before = tmp_path / "state.json"
    before.write_text(json.dumps({"cursors": {"measures": 5}, "access_token": "old"}))
    done = authorize(api, "--state", str(before), stdin=True)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert (state["cursors"], state["access_token"], state["userid"]) == ({"measures": 5}, "access-2", "7")
    assert "access-2" not in done.stderr
    plugin.state = state
    assert plugin.poll() == []


def test_a_code_that_comes_late_or_for_another_question_is_refused(api):
    done = authorize(api, late=31)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a code is valid for 30 seconds" in done.stderr and "code-0" not in done.stderr
    done = authorize(api, stdin=True, answer="code={code}&state=x")
    assert (done.returncode, done.stdout) == (1, "")


def test_authorizing_needs_the_application_in_the_environment():
    done = subprocess.run([sys.executable, HERE / "authorize"], env=ENVIRON, capture_output=True, text=True,
                          check=False, timeout=20)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "authorize: set WITHINGS_CLIENT_ID and WITHINGS_CLIENT_SECRET in the environment\n"
