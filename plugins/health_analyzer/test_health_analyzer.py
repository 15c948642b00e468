"""The health_analyzer plugin: what it keeps of events, and what it says of what it kept."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ductile.protocol import Response
from support import steps
from support.notified import failure

HERE = Path(__file__).resolve().parent


class Plugin:
    """The plugin with its state between runs, as the daemon keeps it."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.state, self.config = workspace, {}, {"timezone": "UTC"}

    def run(self, command: str = "poll", payload: object = None) -> Response:
        request = steps.request(self.workspace, self.config, payload, command=command, state=self.state)
        response = steps.run(HERE, request, self.workspace)
        self.state |= response.state_updates
        return response

    def keep(self, day: date | str, *values: tuple[str, float, str], **more: object) -> Response:
        response = self.run("handle", data(day, *values, **more))
        assert response.status == "ok", response
        return response

    def fill(self, metric: str, values: list[float | None], *, unit: str = "kg", end: int = 0) -> None:
        """Keep one value a day; the last is that of `end` days ago."""
        start = ago(end + len(values) - 1)
        self.state[f"withings.{metric}"] = {"unit": unit, "start": start.isoformat(), "values": values}

    def summary(self) -> dict:
        (event,) = self.run().events
        return event.payload


def ago(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)


def data(day: date | str, *values: tuple[str, float, str], **more: object) -> dict:
    return {"source": "withings", "kind": "measure", "id": "7", "date": str(day), "edited": False,
            "values": [{"metric": metric, "value": value, "unit": unit} for metric, value, unit in values], **more}


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


# What is kept

def test_each_day_has_one_value_for_each_source_and_metric(plugin):
    plugin.keep(ago(3), ("weight", 80.1, "kg"), ("fat_ratio", 21.5, "%"))
    plugin.keep(ago(1), ("weight", 80.3, "kg"))
    plugin.keep(ago(1), ("weight", 79, "kg"), source="garmin")
    plugin.keep(ago(1), ("weight", 80.2, "kg"))
    # It came late.
    plugin.keep(ago(4), ("weight", 81, "kg"))
    assert plugin.state == {
        "withings.weight": {"unit": "kg", "start": str(ago(4)), "values": [81, 80.1, None, 80.2]},
        "withings.fat_ratio": {"unit": "%", "start": str(ago(3)), "values": [21.5]},
        "garmin.weight": {"unit": "kg", "start": str(ago(1)), "values": [79]}}


def test_an_event_stores_only_what_it_changes(plugin):
    plugin.fill("weight", [80.0] * 400)
    plugin.fill("steps", [9000.0] * 400)
    assert set(plugin.keep(ago(0), ("weight", 79, "kg")).state_updates) == {"withings.weight"}


def test_a_nap_does_not_replace_a_night_and_a_summary_of_the_day_replaces_itself(plugin):
    for seconds in (27_000, 1200):
        plugin.keep(ago(0), ("sleep", seconds, "s"), kind="sleep")
    for steps_so_far in (9000, 8000):
        plugin.keep(ago(1), ("steps", steps_so_far, ""), kind="activity", id=str(ago(1)))
    values = {name: series["values"] for name, series in plugin.state.items()}
    assert values == {"withings.sleep": [27_000], "withings.steps": [8000]}


def test_an_event_again_changes_nothing(plugin):
    plugin.keep(ago(2), ("weight", 80.1, "kg"))
    before = json.dumps(plugin.state)
    plugin.keep(ago(2), ("weight", 80.1, "kg"))
    assert json.dumps(plugin.state) == before


def test_the_state_is_bounded(plugin):
    plugin.fill("weight", [80.123] * 500, end=3)
    plugin.keep(ago(0), ("weight", 80.1, "kg"))
    assert len(plugin.state["withings.weight"]["values"]) == 400
    for number in range(12):
        response = plugin.keep(ago(0), *((f"m{number}_{index}", -123_456_789.123, "kg") for index in range(10)))
    assert len(plugin.state) == 60
    assert [line.level for line in response.logs] == ["warn"]
    for series in plugin.state.values():
        series |= {"start": str(ago(399)), "values": [-123_456_789.123] * 400}
    assert len(json.dumps(plugin.state)) < 500_000


@pytest.mark.parametrize("day", [ago(400), ago(-2), date(9999, 12, 31), date(1, 1, 1)])
def test_a_day_out_of_reach_is_a_warning_and_costs_nothing(plugin, day):
    plugin.keep(ago(2), ("weight", 80.1, "kg"))
    before = json.dumps(plugin.state)
    assert [line.level for line in plugin.keep(day, ("weight", 1, "kg")).logs] == ["warn"]
    assert json.dumps(plugin.state) == before


@pytest.mark.parametrize("payload", [
    None, [], {}, {"values": []}, data("soon", ("a", 1, "")), data(ago(1), ("a b", 1, "")),
    data(ago(1), ("a", True, "")), data(ago(1), ("a", 1e10, "")),
    data(ago(1), ("a", 1, "x" * 21)), data(ago(1), ("a", 1, ""), source="../x"),
    data(ago(1), *[("a", 1, "")] * 101), data(ago(1), ("a", 1, "")) | {"date": 5}])
def test_what_is_no_health_data_is_refused(plugin, payload):
    assert not failure(plugin.run("handle", payload))[1]


def test_a_workout_is_not_kept(plugin):
    plugin.keep(ago(0), ("duration", 1800, "s"), kind="workout")
    assert plugin.state == {}


# What is said

def test_the_summary_compares_the_last_week_with_the_four_before(plugin):
    plugin.fill("weight", [*[82.0] * 28, 80.0, None, 80.0, 80.0, 80.0, 80.0, 81.4])
    plugin.fill("sleep", [*[27_000] * 30], unit="s", end=1)
    found = plugin.summary()
    weight, sleep = found["metrics"]
    assert weight == {
        "series": "withings.weight", "source": "withings", "metric": "weight", "unit": "kg", "last": 81.4,
        "last_date": str(ago(0)), "days_ago": 0, "mean_7": 80.233, "mean_28": 82, "change": -1.767, "missing_28": 1,
        "record": None}
    # Today's night is still to come.
    assert (sleep["mean_7"], sleep["change"], sleep["missing_28"]) == (27_000, 0, 0)
    assert found["message"].splitlines() == ["weight: 80.2 kg (−1.8 kg)", "sleep: 7:30 h (+0:00 h)"]


def test_a_gap_and_a_record_are_told(plugin):
    plugin.fill("weight", [80.0] * 70 + [79.5])
    plugin.fill("steps", [float(9000 + number) for number in range(80)], unit="", end=2)
    plugin.fill("hrv", [48.0], unit="ms", end=20)
    found = {each["metric"]: each for each in plugin.summary()["metrics"]}
    assert {metric: each["record"] for metric, each in found.items()} == {
        "weight": "lowest", "steps": "highest", "hrv": None}
    assert (found["hrv"]["days_ago"], found["hrv"]["mean_7"], found["hrv"]["change"]) == (20, None, None)
    assert "hrv: last value 20 days ago, 48 ms" in plugin.summary()["message"].splitlines()


def test_the_files_are_a_table_and_a_chart(plugin, tmp_path):
    plugin.fill("weight", [80.0, None, 81.0, *[None] * 20, 82.0])
    plugin.fill("x<y", [1.0], unit="&")
    plugin.state["garmin.weight"] = plugin.state["withings.weight"]
    plugin.config["metrics"] = ["weight", "x<y"]
    found = plugin.summary()
    table = Path(found["summary_path"]).read_text(encoding="utf-8")
    assert table.splitlines()[4].startswith("| weight (garmin) | 82 kg, ") and "| x<y |" in table
    chart = ElementTree.parse(found["chart_path"]).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points").split() for line in chart.iter(f"{svg}polyline")]
    assert [len(line) for line in lines] == [2, 1, 2, 1, 1]
    assert {"weight (withings)", "x<y", "1 &"} <= {text.text for text in chart.iter(f"{svg}text")}
    assert found["chart_path"] == str(tmp_path / "chart.svg")


def test_an_attempt_has_the_same_key_and_another_job_another(plugin):
    plugin.fill("weight", [80.0])
    keys = [plugin.run().events[0].dedupe_key for _ in range(2)]
    assert keys == ["health.summary:j-1"] * 2


def test_without_a_value_there_is_nothing_to_say(plugin):
    assert (plugin.run().events, plugin.run().result) == ((), "no values yet")
    plugin.state = {"withings.weight": {"unit": "kg", "start": "x", "values": [1]}}
    assert plugin.run().events == ()


@pytest.mark.parametrize("config", [{"metrics": []}, {"chart_days": 6}, {"timezone": "Mars"}, {"other": 1}])
def test_a_wrong_configuration_is_an_error(plugin, config):
    plugin.config = config
    assert not failure(plugin.run())[1]


def test_it_runs_as_a_process(plugin, tmp_path):
    plugin.fill("weight", [80.0])
    request = steps.request(tmp_path, {}, command="poll", state=plugin.state)
    assert steps.run_process(HERE, request, tmp_path).events[0].type == "health.summary"
