"""The screen of `monitor` as text: at every size, with everything, with nothing, and with hostile names."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from ctl.sights import CHOSEN, HOSTILE, at, busy, chain_of, job, plugin, sight, text
from ductile.ctl.monitor import render
from ductile.ctl.monitor.state import PANES, Message, Paper, Question, Snapshot, State
from ductile.ctl.text_width import count

SCREENS = Path(__file__).parent / "screens"
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (200, 60)])
def test_the_whole_screen(columns: int, rows: int) -> None:
    assert text(busy(), CHOSEN, columns, rows) == (SCREENS / f"busy-{columns}x{rows}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "seen"), [
    ("queue", replace(CHOSEN, focus="queue")), ("plugins", replace(CHOSEN, focus="plugins", plugin="withings")),
    ("chain", replace(CHOSEN, focus="chain", line=1)), ("help", State(help_line=0)),
    ("filter", replace(CHOSEN, filter="WITH")),
])
def test_the_focused_pane_has_most_of_the_screen(name: str, seen: State) -> None:
    assert text(busy(), seen, 80, 24) == (SCREENS / f"{name}-80x24.txt").read_text(encoding="utf-8")


def test_with_nothing_to_show_it_says_so() -> None:
    nothing = sight(config_load=None, daemon={"running": False, "pid": None, "since": None, "listen": None})
    assert text(nothing, State(), 80, 24) == (SCREENS / "nothing-80x24.txt").read_text(encoding="utf-8")


def hostile(word: str) -> Snapshot:
    """Everything that a plugin or a file can name has this name."""
    rows = [job(number, status, plugin=word, command=word, last_error=word, step_id=word, pipeline_name=word,
                next_retry_at=at(400) if number == 1 else None)
            for number, status in enumerate(("running", "queued", "queued", "dead", "succeeded", "deduped"))]
    return sight(
        waiting=rows[:3], ended=rows[3:], chain=chain_of(rows[3], stderr=word * 3, printed=word, files=[(word, 1)]),
        plugins=[plugin(word, held=[word, word], last_outcome=word, last_error=word), plugin(word + word)],
        config_load={"loaded_at": at(0), "ok": False, "errors": word},
        daemon={"running": True, "pid": 1, "since": at(0), "listen": word})


@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_breaks_out_of_its_line(word: str) -> None:
    focused = [State(focus=focus, job=job(3)["job_id"], filter=word[:60]) for focus in PANES]
    seen, everything = focused[0], hostile(word)
    views = [State(), replace(seen, typing=True), replace(seen, message=Message(text=word, good=True)),
             replace(seen, question=Question(text=word, arguments=()))]
    shown_to = [*product(focused, ((80, 24), (40, 10), (150, 30))), *product(views, ((80, 24),))]
    for each, (columns, rows) in shown_to:
        lines = render.lines(everything, each, columns=columns, rows=rows)
        assert len(lines) == rows
        for line in lines:
            shown = "".join(span.text for span in line)
            assert sum(count(span.text) for span in line) == count(shown) <= columns
            assert {unicodedata.category(char) for char in shown} & OBEYED == set()
            assert {span.style for span in line} <= set(render.STYLES)
        assert count("".join(span.text for span in lines[-1])) < columns


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (2, 50), (39, 24), (80, 9), (0, 0), (300, 1)])
def test_a_screen_that_is_too_small_says_so(columns: int, rows: int) -> None:
    lines = render.lines(busy(), State(), columns=columns, rows=rows)
    shown = "".join(span.text for span in lines[0])
    assert len(lines) == max(1, rows)
    assert len(shown) < max(1, columns)
    assert "too small: 40x10 at least".startswith(shown.rstrip("…"))
    assert [line for line in lines[1:] if line] == []


def test_every_row_of_the_screen_is_somebodys() -> None:
    for focus, columns, rows in product(PANES, (40, 63, 64, 80, 139, 140, 200), range(10, 71, 5)):
        lines = render.lines(busy(), State(focus=focus), columns=columns, rows=rows)
        # Only the line of questions and answers may be empty.
        assert all(line for line in lines[:-2])
        assert 1 <= render.page(busy(), State(focus=focus), columns=columns, rows=rows) <= rows
        titles = [span.text for line in lines for span in line if span.text.startswith(("== ", "-- "))]
        assert len([title for title in titles if title.startswith(f"== {focus}")]) == 1 or focus == "chain"


# The lines above and below the panes


def first_lines(number: int, columns: int = 120, **status: Any) -> list[str]:
    return text(sight(**status), State(), columns, 24).splitlines()[:number]


def test_a_daemon_that_listens_says_where() -> None:
    daemon = {"running": True, "pid": 7, "since": at(-7200), "listen": "127.0.0.1:8081"}
    assert first_lines(1, daemon=daemon) == [
        "ductiled  up 2h 5m as PID 7, since 2026-02-08 08:00 +0000, listening on 127.0.0.1:8081"]


@pytest.mark.parametrize(("errors", "expected"), [
    ("config.yaml:3:1: no\nand\nmore", "! rejected 5m ago (and 2 more: ductilectl check); still using the previous one:"
                                       " config.yaml:3:1: no"),
    ("one", "! rejected 5m ago; still using the previous one: one"),
    (None, "! rejected 5m ago; still using the previous one: no reason stored"),
])
def test_a_refused_reload_says_why(errors: str | None, expected: str) -> None:
    load = {"loaded_at": at(0), "ok": False, "errors": errors}
    assert first_lines(2, config_load=load)[1] == f"config    {expected}"
    assert text(sight(config_load=load), State(), 60, 10).splitlines()[0] == (
        "up 5m; config rejected; 0 queued, 0 waiting")


@pytest.mark.parametrize(("fields", "timeout", "expected", "style"), [
    ({"started_at": at(290)}, None, "* 00000001 echo poll 1/4: 10s", "focus"),
    ({"started_at": at(290)}, 60, "* 00000001 echo poll 1/4: 10s of 1m [###-----------------]", "focus"),
    ({"started_at": at(240)}, 60, "* 00000001 echo poll 1/4: 1m of 1m [####################]", "focus"),
    ({"started_at": at(239)}, 60, "* 00000001 echo poll 1/4: 1m 1s of 1m, overdue", "bad"),
    ({"started_at": at(999)}, 60, "* 00000001 echo poll 1/4: 0s of 1m [--------------------]", "focus"),
    ({"started_at": None, "attempt": 3}, 60, "* 00000001 echo poll 3/4", "focus"),
])
def test_what_runs_is_measured_against_its_deadline(fields: dict[str, Any], timeout: int | None, expected: str,
                                                    style: str) -> None:
    running = job(1, "running", **fields)
    seen = sight(waiting=[running], timeouts={} if timeout is None else {running["job_id"]: timeout})
    (span,) = render.lines(seen, State(), columns=80, rows=24)[3]
    assert (span.text, span.style) == (f"running   {expected}", style)


def test_what_a_dead_daemon_has_left_running_is_not_measured() -> None:
    down = {"running": False, "pid": None, "since": None, "listen": None}
    seen = sight(waiting=[job(1, "running")], daemon=down)
    assert text(seen, State(), 100, 24).splitlines()[:4] == [
        "ductiled  ! not running; the database says:", "config    loaded 5m ago, at 2026-02-08 10:00 +0000",
        "queue     0 queued, 0 waiting for a retry, 1 running",
        "running   * 00000001 echo poll 1/4: interrupted; runs again when ductiled starts"]
    assert text(seen, State(), 50, 10).splitlines()[0] == "! down; 0 queued, 0 waiting"


@pytest.mark.parametrize(("seen", "expected"), [
    (State(question=Question(text="cancel job 1a2b3c4d (echo poll)", arguments=())),
     "cancel job 1a2b3c4d (echo poll)? y/n"),
    (State(question=Question(text="cancel job 1a2b3c4d (a-plugin-with-a-long-name poll)", arguments=())),
     "cancel job 1a2b3c4d (a-plugin-with…? y/n"),
    (State(typing=True, filter="ec"), "/ec_"),
    (State(message=Message(text="retry: job 1 is queued again", good=True)), "+ retry: job 1 is queued again"),
    (State(message=Message(text="nothing was changed", good=False)), "! nothing was changed"),
    (State(filter="ec"), "only what has 'ec': Esc shows all"),
    (State(focus="plugins"), "disabled; last error: no such file"),
    (State(), ""),
])
def test_the_line_below_has_what_matters_most(seen: State, expected: str) -> None:
    known = sight(plugins=[plugin("echo", held=["disabled"], last_error="no such file\n")])
    assert text(known, seen, 40, 10).splitlines()[8] == expected


@pytest.mark.parametrize(("columns", "expected"), [
    (200, "? help  q quit  Tab pane  Enter open  / filter  f failed  l logs  r run  t retry  c cancel  p pause"
          "  x run...  P replay  R reset"),
    (80, "? help  q quit  Tab pane  Enter open  / filter  f failed  l logs  r run"),
    (40, "? help  q quit  Tab pane  Enter open"),
])
def test_as_many_keys_are_shown_as_there_is_room_for(columns: int, expected: str) -> None:
    assert text(sight(), State(), columns, 24).splitlines()[-1] == expected


# The panes


def test_of_a_long_queue_it_says_how_much_is_not_shown() -> None:
    waiting = [job(number) for number in range(200)]
    shown = text(sight(waiting=waiting, queue={"queued": 9999, "waiting": 1, "running": 0}), State(), 80, 24)
    assert "== queue: the first 200 of 10000 ===" in shown


@pytest.mark.parametrize(("chosen", "first"), [(0, 0), (5, 0), (50, 45), (99, 89)])
def test_the_chosen_row_is_always_in_sight(chosen: int, first: int) -> None:
    seen = sight(waiting=[job(number) for number in range(100)])
    lines = text(seen, State(job=job(chosen)["job_id"]), 80, 24).splitlines()
    assert lines[5][3:11] == f"{first:08x}"
    assert [line[3:11] for line in lines[5:16] if line.startswith(">")] == [f"{chosen:08x}"]


@pytest.mark.parametrize(("fields", "sign", "style", "rest"), [
    ({"last_error": "before"}, "+", "plain", "next in 1h"),
    ({"last_outcome": "failed", "last_error": "no route\n"}, "x", "bad", "no route"),
    ({"last_outcome": None, "last_run": None}, "-", "plain", "next in 1h"),
    ({"enabled": False, "held": ["disabled"]}, "-", "dim", "disabled"),
    ({"held": ["not loaded: gone", "poll guard"]}, "!", "warn", "not loaded: gone; poll guard"),
    ({"held": ["paused since 2026-02-08T10:00:00.000Z"]}, "!", "warn", "paused since 2026-02-08 10:00 +0000"),
])
def test_a_plugin_has_its_sign_and_its_reason(fields: dict[str, Any], sign: str, style: str, rest: str) -> None:
    lines = render.lines(sight(plugins=[plugin("echo", **fields)]), State(), columns=120, rows=24)
    (span,) = next(line for line in lines if "echo" in "".join(span.text for span in line))
    assert (span.text[1], span.style) == (sign, style)
    assert span.text.rstrip().endswith(f" {rest}")


def test_all_that_fails_is_in_sight_on_a_small_screen() -> None:
    ended = [job(number, "succeeded") for number in range(100)]
    plugins = [plugin(f"well{number}") for number in range(9)]
    plugins += [plugin(f"ill{number}", last_outcome="failed", last_error="no") for number in range(8)]
    for focus in PANES:
        shown = text(sight(ended=ended, plugins=plugins, waiting=ended), State(focus=focus), 80, 24)
        assert [number for number in range(8) if f" ill{number} " not in shown] == []


def test_panes_that_need_little_leave_their_room_to_others() -> None:
    ended = [job(number, "succeeded") for number in range(100)]
    lines = text(sight(ended=ended, plugins=[plugin("echo")]), State(), 80, 40).splitlines()
    titles = [number for number, line in enumerate(lines) if line.startswith(("== ", "-- "))]
    assert [after - before for before, after in pairwise(titles)] == [2, 28, 2]


def test_a_wide_pane_has_the_last_day_of_each_plugin() -> None:
    hours = [(0, 0)] * 20 + [(1, 0), (8, 0), (4, 0), (3, 1)]
    seen = replace(sight(plugins=[plugin("echo"), plugin("idle")]), activity={"echo": hours})
    assert f"next in 1h      {' ' * 20}.#=x\n" in text(seen, State(), 100, 24)
    unicode = render.lines(seen, State(), columns=100, rows=24, knows_all=True)
    assert "\u2581\u2588\u2584x" in "".join(span.text for line in unicode for span in line)
    assert ".#" not in text(seen, State(), 90, 24)


def test_a_text_over_the_panes_says_where_in_it_this_is() -> None:
    paper = Paper(title="job 1a2b3c4d", commands=(), lines=tuple(f"line {number}" for number in range(100)), line=3)
    lines = text(sight(), State(paper=paper), 60, 10).splitlines()
    assert lines[0] == "== job 1a2b3c4d: lines 4 to 10 of 100 ======================"
    assert lines[1:8] == [f"line {number}" for number in range(3, 10)]
    assert lines[8:] == ["", "Esc closes, arrows and PgUp, PgDn, Home, End scroll"]
    assert render.page(sight(), State(paper=paper), columns=60, rows=10) == 7


def test_a_chain_is_a_tree_with_what_the_chosen_job_said_below_it() -> None:
    root = job(1, "succeeded", command="handle")
    middle = job(2, "dead", parent_job_id=root["job_id"], last_error="exit 1", replay_of=job(9)["job_id"])
    leaf = job(3, parent_job_id=middle["job_id"], next_retry_at=at(330))
    stray = job(4, "running", parent_job_id="cut off")
    chain = chain_of(middle, root, leaf, stray, stderr="one\ntwo\n" + "x\n" * 99, printed="{", files=[("a/b", 5 << 20)],
                     total=1000)
    shown = [line.rstrip() for line in text(sight(chain=chain), State(focus="chain", line=0, job=middle["job_id"]),
                                            200, 90).splitlines()[5:-2]]
    assert [line.split("|")[1] for line in shown if line.split("|")[1]][:5] == [
        "   + 00000001 echo handle: succeeded, 1/4, 1.5s".replace("   +", ">+", 1),
        "   x 00000002 echo poll, replay of 00000009: dead, 1/4, 1.5s", "       error: exit 1", "       stderr: one",
        "       stderr: two"]
    assert [line.split("|")[1] for line in shown if line.split("|")[1]][-6:] == [
        "       stderr: and 41 lines more", "       printed: {", "       file: a/b (5.0 MB)",
        "     ! 00000003 echo poll: queued, 1/4, retry in 30s", " * 00000004 echo poll: running, 1/4",
        " and 996 more: ductilectl inspect 00000002"]


def test_the_baggage_of_the_chosen_job_is_compared_with_that_before_it() -> None:
    chosen = job(1, "succeeded")
    chain = chain_of(chosen, added={"kg": 81, "unit": "kg"}, before={"unit": "lb", "gone\x1b": "x" * 200})
    shown = text(sight(chain=chain), State(focus="chain", job=chosen["job_id"]), 200, 30)
    lines = [line.split("|")[1].strip() for line in shown.splitlines() if "|" in line]
    assert [line for line in lines if line.startswith(("+", "~", "x"))] == [
        "+ kg: 81", '~ unit: "kg" (was "lb")', "x gone\\x1b"]


def test_a_deep_chain_stays_on_the_screen() -> None:
    jobs = [job(number, parent_job_id=job(number - 1)["job_id"]) for number in range(1, 100)]
    shown = text(sight(chain=chain_of(jobs[98], *jobs[:98])), State(focus="chain", job=jobs[98]["job_id"]), 40, 10)
    assert ">                . 00000063 echo poll: …\n" in shown
