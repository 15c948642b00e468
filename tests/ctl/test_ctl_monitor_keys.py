"""What keys do: the eye stays with what was chosen, and nothing is changed before it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ctl.desk import job_id
from ctl.sights import at, chain_of, job, plugin, sight
from ductile.ctl.monitor.state import (
    CHAIN,
    HELP,
    PANES,
    PLUGINS,
    QUEUE,
    RECENT,
    Message,
    Question,
    Snapshot,
    State,
    chosen_job,
    cursor,
    press,
    rows,
    settled,
)

PAGE = 5
ROOT, LEAF = job(1, "dead", last_error="No Luck"), job(2, parent_job_id=job_id(1), plugin="leaf")
WAITING = [job(10, "running"), *(job(number) for number in range(11, 20))]
ENDED = [ROOT, *(job(number, "succeeded", plugin="other") for number in range(30, 40))]
SEEN = sight(waiting=WAITING, ended=ENDED, plugins=[plugin("echo"), plugin("other", held=["poll guard"]), plugin("x")],
             chain=chain_of(ROOT, LEAF))
NOTHING = sight()


def after(keys: Sequence[str], view: State = State(), seen: Snapshot = SEEN) -> State:
    """The view after some keys, of which none may have asked for a command."""
    for key in keys:
        view, arguments = press(view, key, seen, page=PAGE)
        assert arguments is None
    return view


@pytest.mark.parametrize(("seen", "expected"), [
    (SEEN, 10), (replace(SEEN, open=WAITING[1:]), 1), (replace(SEEN, open=WAITING[1:], ended=[]), 11),
])
def test_while_nothing_is_chosen_what_runs_or_ended_last_is_looked_at(seen: Snapshot, expected: int) -> None:
    assert chosen_job(State(), seen) == job_id(expected)
    assert chosen_job(State(), NOTHING) is None


@pytest.mark.parametrize(("keys", "expected"), [
    (["j"], 11), (["down", "down"], 12), (["j", "k"], 10), (["up"], 10), (["end"], 19), (["end", "j"], 19),
    (["pgdn"], 15), (["pgdn", "pgdn"], 19), (["end", "pgup"], 14), (["end", "home"], 10),
])
def test_the_cursor_moves_within_its_pane(keys: list[str], expected: int) -> None:
    assert chosen_job(after(keys), SEEN) == job_id(expected)


def test_tab_goes_round_the_panes_and_back() -> None:
    assert [after(["tab"] * count).focus for count in range(6)] == [*PANES, *PANES[:2]]
    assert [after(["backtab"] * count).focus for count in range(3)] == [QUEUE, CHAIN, PLUGINS]


def test_a_pane_of_jobs_that_is_entered_has_a_chosen_row() -> None:
    recent = after(["tab"])
    assert (recent.job, cursor(recent, SEEN, RECENT), cursor(recent, SEEN, QUEUE)) == (job_id(1), 0, None)
    assert after(["j", "j", "tab", "backtab"]).job == job_id(12)
    assert after(["tab", "j", "j"], seen=NOTHING).job is None


def test_the_chosen_job_stays_chosen_when_it_goes_elsewhere() -> None:
    view = after(["j", "j"])
    ended = replace(SEEN, open=[WAITING[0], WAITING[1], *WAITING[3:]], ended=[job(12, "succeeded"), *ENDED])
    assert (chosen_job(view, ended), cursor(view, ended, QUEUE), cursor(view, ended, RECENT)) == (job_id(12), None, 0)
    # Where it was there is the next now, and a move goes there.
    assert [after([key], view, ended).job for key in ("j", "k", "end")] == [job_id(13)] * 3


def test_esc_follows_what_runs_again_and_shows_all() -> None:
    view = after(["/", "x", "enter", "tab", "j", "esc"])
    assert (view.job, view.filter, chosen_job(view, SEEN)) == (None, "", job_id(10))


def test_the_plugins_have_a_cursor_of_their_own() -> None:
    view = after(["tab", "tab"])
    assert (cursor(view, SEEN, PLUGINS), view.job) == (0, job_id(1))
    view = after(["j", "j", "j"], view)
    assert (view.plugin, view.job) == ("x", job_id(1))
    assert cursor(view, replace(SEEN, status={**SEEN.status, "plugins": [plugin("x")]}), PLUGINS) == 0


def test_in_the_chain_enter_chooses_the_job_of_a_line() -> None:
    view = after(["backtab"], State(job=job_id(1)))
    assert [cursor(view, SEEN, CHAIN), cursor(after(["end"], view), SEEN, CHAIN)] == [0, 2]
    chosen = after(["end", "enter"], view)
    assert (chosen.job, chosen.line) == (job_id(2), None)
    assert cursor(chosen, replace(SEEN, chain=chain_of(LEAF, ROOT)), CHAIN) == 1
    assert cursor(State(focus=CHAIN, line=99), SEEN, CHAIN) == 2
    assert after(["j", "enter"], State(focus=CHAIN), NOTHING).job is None


# The filter


@pytest.mark.parametrize(("word", "queued", "ended", "plugins"), [
    ("OTHER", 0, 10, 1), ("no luck", 0, 1, 0), ("0000000b", 1, 0, 0), ("succeeded", 0, 10, 3), ("guard", 0, 0, 1),
    ("none", 0, 0, 0), ("", 10, 11, 3),
])
def test_the_filter_finds_names_ids_statuses_and_errors(word: str, queued: int, ended: int, plugins: int) -> None:
    view = after(["/", *word, "enter"])
    assert [len(rows(view, SEEN, pane)) for pane in (QUEUE, RECENT, PLUGINS)] == [queued, ended, plugins]


def test_what_is_typed_is_text_and_no_command() -> None:
    view = after(["/", *"qrtcR?", "up", "tab", "\x01", "\x9b", "\u202e"])
    assert (view.filter, view.typing, view.ended, view.question) == ("qrtcR?", True, False, None)
    assert after(["backspace"] * 9, view).filter == ""
    assert after(["/", *"x" * 99]).filter == "x" * 60
    assert (after(["esc"], view).filter, after(["esc"], view).typing) == ("", False)


# Questions


@pytest.mark.parametrize(("keys", "question", "arguments"), [
    (["c"], "cancel job 0000000a (echo poll)", ("cancel", job_id(10), "--no-wait")),
    (["tab", "t"], "retry job 00000001 (echo poll)", ("retry", job_id(1))),
    (["tab", "P"], "replay job 00000001 (echo poll)", ("replay", job_id(1))),
    (["tab", "backtab", "backtab", "end", "c"], "cancel job 00000002 (leaf poll)", ("cancel", job_id(2), "--no-wait")),
    (["r"], "run echo poll", ("run", "echo", "poll")),
    (["R"], "reset plugin echo", ("reset", "echo")),
    (["tab", "j", "R"], "reset plugin other", ("reset", "other")),
    (["tab", "tab", "end", "r"], "run x poll", ("run", "x", "poll")),
    (["p"], "pause plugin echo", ("pause", "echo")),
    (["x", "i", "n", "x", "backspace", "i", "t", "/", "enter"], "run echo init", ("run", "echo", "init")),
    (["tab", "tab", "c"], "cancel job 00000001 (echo poll)", ("cancel", job_id(1), "--no-wait")),
])
def test_what_changes_something_asks_first(keys: list[str], question: str, arguments: tuple[str, ...]) -> None:
    view = after(keys)
    assert view.question.text == question
    for yes in "yY":
        done, found = press(view, yes, SEEN, page=PAGE)
        assert (found, done.question) == (arguments, None)


def test_a_paused_plugin_is_resumed() -> None:
    seen = sight(plugins=[plugin("echo", held=["paused"], paused_since=at(0))])
    assert after(["p"], State(focus=PLUGINS), seen).question == Question(
        text="resume plugin echo", arguments=("resume", "echo"))


@pytest.mark.parametrize("key", ["n", "N", "esc", "enter", "q", "c", "j", "tab", " "])
def test_whatever_is_not_yes_changes_nothing(key: str) -> None:
    view = after(["c", key])
    assert (view.question, view.message, view.ended) == (None, Message(text="nothing was changed", good=False), False)
    assert after(["j"], view).message is None


@pytest.mark.parametrize("key", "tPcrRpxl")
def test_with_nothing_to_change_it_says_so(key: str) -> None:
    what = {"t": "job to retry", "P": "job to replay", "c": "job to cancel", "r": "plugin to run",
            "R": "plugin to reset", "p": "plugin to pause", "x": "plugin to run", "l": "plugin to show logs of"}[key]
    assert after([key], seen=NOTHING).message == Message(text=f"there is no {what}", good=False)
    assert after([key], State(focus=PLUGINS), NOTHING).message == Message(text=f"there is no {what}", good=False)


def test_the_job_that_was_changed_stays_in_sight() -> None:
    seen = replace(SEEN, open=WAITING[1:])
    view, _ = press(after(["t"], seen=seen), "y", seen, page=PAGE)
    assert view.job == job_id(1)
    view, _ = press(after(["r"], seen=seen), "y", seen, page=PAGE)
    assert view.job is None


# What failed, and texts over all panes


def test_f_shows_what_failed_and_esc_all() -> None:
    seen = sight(waiting=[job(1), job(2, next_retry_at=at(400))], ended=[job(3, "succeeded"), job(4, "dead")],
                 plugins=[plugin("a"), plugin("b", last_outcome="timed_out"),
                          plugin("c", enabled=False, held=["disabled"]), plugin("d", held=["paused"])])
    failed = after(["f"], seen=seen)
    assert [row["job_id"] for pane in (QUEUE, RECENT) for row in rows(failed, seen, pane)] == [job_id(2), job_id(4)]
    assert [row["plugin"] for row in rows(failed, seen, PLUGINS)] == ["b", "d"]
    assert [row["plugin"] for row in rows(after(["f", "esc"], seen=seen), seen, PLUGINS)] == ["b", "d", "a", "c"]
    assert not after(["f", "f"], seen=seen).failed


def test_enter_opens_a_job_and_keys_read_it() -> None:
    view = after(["tab", "enter"])
    assert (view.paper.job, view.paper.commands) == (
        job_id(1), (("inspect", job_id(1)), ("logs", job_id(1))))
    filled = replace(view, paper=replace(view.paper, lines=tuple("abcdefghij")))
    assert [after(keys, filled).paper.line for keys in (
        ["j"], ["down", "up"], ["end"], ["pgdn", " "], ["end", "home"], ["end", "k"])] == [1, 0, 5, 5, 0, 4]
    for key in ("esc", "q", "enter", "c"):
        closed = after([key], filled)
        assert (closed.paper, closed.ended, closed.question, closed.job) == (None, False, None, job_id(1))


def test_enter_on_a_plugin_opens_its_last_job_and_l_its_logs() -> None:
    seen = sight(plugins=[plugin("a", last_job_id=job_id(7)), plugin("b")])
    assert after(["enter"], State(focus=PLUGINS), seen).paper.job == job_id(7)
    assert after(["j", "enter"], State(focus=PLUGINS), seen).message.text == "there is no job to open"
    assert after(["l"], State(focus=PLUGINS), seen).paper.commands == (("logs", "a", "-n", "50"),)


# Help, and the end


def test_help_is_read_and_closed_by_any_other_key() -> None:
    assert [after(["?", *keys]).help_line for keys in (
        [], ["j"], ["end"], ["end", "k"], ["pgdn", "home"], ["up"])] == [0, 1, len(HELP) - PAGE, len(HELP) - PAGE - 1,
                                                                          0, 0]
    for key in ("?", "q", "esc", "c", "enter"):
        closed = after(["?", key])
        assert (closed.help_line, closed.ended, closed.question) == (None, False, None)


def test_q_quits_and_an_unknown_key_does_nothing() -> None:
    assert after(["q"]).ended
    assert after(["z", "ä", "\x07", "backspace"]) == State()


def test_a_job_that_waits_for_a_retry_is_one_of_the_queue() -> None:
    waits = sight(waiting=[job(1, next_retry_at=at(400))])
    assert chosen_job(State(), waits) == job_id(1)


def test_a_cancellation_is_told_of_until_the_job_has_ended() -> None:
    asked = State(message=Message(text="cancel: job 1 is being cancelled", good=True, job=job_id(10)))
    moved = settled(after(["j", "tab"], asked), SEEN)
    assert moved.message == asked.message
    ends = {status: settled(moved, replace(SEEN, open=[], ended=[job(10, status)])).message
            for status in ("dead", "succeeded")}
    assert ends == {"dead": Message(text=f"cancel: job {job_id(10)} is cancelled", good=True),
                    "succeeded": Message(text=f"cancel: job {job_id(10)} had already succeeded", good=False)}
    down = replace(SEEN, status={**SEEN.status, "daemon": {"running": False}})
    assert settled(moved, down).message == Message(
        text=f"cancel: job {job_id(10)} will be cancelled when ductiled starts", good=False)
    assert after(["j"], replace(moved, message=ends["dead"])).message is None
