"""`monitor` on a real terminal with the real daemon: what is seen, what keys do, and what is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ctl.terminals import Tmux, monitor, tmux
from support.daemon import RealDaemon
from support.gate import Gate

# A cleared screen, a title, a colour, a bell, C1's introducer, the direction of writing, a wide character.
EVIL = """\
#!/bin/sh
cat >/dev/null
printf '\\033[2J\\033]0;owned\\007\\tred\\033[41m\\302\\233\\n\\342\\200\\256second line\\n' >&2
printf '{"status": "error", "retry": false, "error": "no \\\\u001b]0;owned\\\\u0007\\\\u202e\\\\u65e5 luck"}'
"""
SAID = "no \\x1b]0;owned\\x07\\u202e日 luck"


@pytest.fixture
def tty() -> Iterator[Tmux]:
    """A shell on a terminal. Before the daemon, which takes what comes after it for its own."""
    with tmux() as opened:
        yield opened


def rows_of(lines: list[str], pane: str) -> list[str]:
    """The rows that a pane has below its title."""
    titles = [number for number, line in enumerate(lines) if line[:3] in ("━━ ", "── ")]
    first = next(number for number in titles if lines[number][3:].startswith(pane))
    end = next((number for number in titles if number > first), -2)
    return [line for line in lines[first + 1:end] if line]


def test_hostile_words_are_shown_and_obeyed_by_nobody(tty: Tmux, daemon: RealDaemon) -> None:
    daemon.plugin("evil", EVIL)
    daemon.start()
    dead = daemon.submit("evil")
    daemon.await_job(dead, "dead")
    # Names come from the operator's file, which is checked; a file of a workspace can have any.
    daemon.write("INSERT INTO artifacts (job_id, path, size, mtime_ns, digest) VALUES (?, ?, 3, 0, '')", dead,
                 "out/\x1b[2J\u202etxt.exe\n日")
    title = tty.title
    tty.command("stty -g")
    modes = tty.until_shown("code 0")[0]
    tty.command(*monitor(daemon.home))
    tty.until_shown("ductiled  up ", f">x {dead[:8]} evil poll", "x evil failed")
    tty.keys("BTab")
    shown = tty.until_shown("━━ chain", "stderr: ")
    assert rows_of(shown, "chain")[0].startswith(f">x {dead[:8]} evil poll: dead, 1/4, ")
    assert rows_of(shown, "chain")[1:4] == [
        f"     error: {SAID}",
        "     stderr: \\x1b[2J\\x1b]0;owned\\x07\\tred\\x1b[41m\\x9b", "     stderr: \\u202esecond line"]
    tty.keys("End")
    tty.until_shown(">    file: out/\\x1b[2J\\u202etxt.exe\\n日 (3 B)")
    assert "\x1b[41m" not in tty.coloured()
    assert tty.title == title
    tty.keys("q")
    tty.until_shown("code 0")
    tty.command("stty -g")
    assert modes in tty.until_shown("code 0", modes)
    daemon.stop()


def test_jobs_are_watched_while_the_size_changes_and_not_cancelled_after_no(tty: Tmux, daemon: RealDaemon,
                                                                            gate: Gate) -> None:
    daemon.install("ok")
    daemon.install("waits", config=gate.config, timeouts={"poll": "1h"})
    daemon.start()
    held = daemon.submit("waits")
    gate.arrived()
    queued = daemon.submit("ok")
    tty.command(*monitor(daemon.home))
    lines = tty.until_shown(f"running   * {held[:8]} waits poll 1/4: ", " of 1h [-", f". {queued[:8]} ok")
    assert [row[1:11] for row in rows_of(lines, "queue")] == [f"* {held[:8]}", f". {queued[:8]}"]
    # Elapsed time goes on though nobody writes.
    tty.until_shown("waits poll 1/4: 2s of 1h")
    tty.keys("j", "c")
    tty.until_shown(f"cancel job {queued[:8]} (ok poll)? y/n")
    tty.keys("n")
    tty.until_shown("! nothing was changed")
    assert daemon.job(queued)[0] == "queued"

    tty.resize(40, 10)
    small = tty.until_shown("queued, 0 waiting", f"* {held[:8]} waits poll")
    assert (len(small), max(map(len, small)) <= 40, small[9]) == (10, True, "? help  q quit  Tab pane  Enter open")
    tty.resize(39, 10)
    assert tty.until_shown("too small")[:2] == ["too small: 40x10 at least", ""]
    tty.resize(200, 60)
    tty.until_shown("│── chain of ")
    gate.let_through()
    daemon.await_job(queued, "succeeded")
    tty.resize(80, 24)
    # The eye has stayed with the job, though it is somewhere else now.
    tty.until_shown("running   nothing runs", "recent, 24h: 2 succeeded, 0 dead, 0 deduped", f">+ {queued[:8]} ok",
                    f"chain of {queued[:8]}")
    tty.keys("q")
    tty.until_shown("code 0")
    daemon.stop()


def test_a_dead_job_is_retried_by_key(tty: Tmux, daemon: RealDaemon) -> None:
    daemon.plugin("evil", EVIL)
    daemon.install("ok")
    daemon.start()
    dead, other = daemon.submit("evil"), daemon.submit("ok")
    daemon.await_job(other, "succeeded")
    tty.command(*monitor(daemon.home))
    tty.until_shown(f"+ {other[:8]}", f"x {dead[:8]}")
    tty.keys("/", "evil", "Enter", "Tab")
    tty.until_shown("━━ recent: 1 with 'evil'", f">x {dead[:8]} evil", f"chain of {dead[:8]}")
    tty.keys("t")
    tty.until_shown(f"retry job {dead[:8]} (evil poll)? y/n")
    tty.keys("y")
    tty.until_shown(f"+ retry: job {dead} is queued again, att")
    daemon.until("SELECT count(*) FROM job_log WHERE job_id = ?", [(2,)], dead)
    tty.until_shown(f">x {dead[:8]} evil poll: dead, 2/5")
    tty.keys("q")
    tty.until_shown("code 0")
    daemon.stop()


def test_an_open_job_is_followed_while_it_runs(tty: Tmux, daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("talks", "#!/bin/sh\nfor n in $(seq 40); do echo said $n >&2; done\n"
                           f"echo >'{gate.config['arrived']}'; read line <'{gate.config['go']}'\n"
                           "echo at last >&2; printf '{\"status\":\"ok\",\"result\":\"fine\"}'\n")
    daemon.start()
    job = daemon.submit("talks")
    gate.arrived()
    tty.command(*monitor(daemon.home))
    tty.until_shown(f"* {job[:8]} talks poll")
    tty.keys("Enter")
    tty.until_shown(f"━━ job {job[:8]}: lines 1 to ", "Esc closes")
    tty.keys("End")
    tty.until_shown("said 40")
    gate.let_through()
    # What was shown to its end stays there.
    tty.until_shown("at last")
    tty.keys("Escape")
    tty.until_shown(f"+ {job[:8]} talks poll", "q quit")
    tty.keys("q")
    tty.until_shown("code 0")
    daemon.stop()


def test_a_job_is_replayed_by_key(tty: Tmux, daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    first = daemon.submit("ok")
    daemon.await_job(first, "succeeded")
    tty.command(*monitor(daemon.home))
    tty.until_shown(f"+ {first[:8]} ok")
    tty.keys("P")
    tty.until_shown(f"replay job {first[:8]} (ok poll)? y/n")
    tty.keys("y")
    tty.until_shown("+ replay: ")
    ((again,),) = daemon.rows("SELECT id FROM job_queue WHERE replay_of = ?", first)
    tty.until_shown(f"+ replay: {again}", f"{again[:8]} ok poll, replay of {first[:8]}: succeeded")
    tty.keys("q")
    tty.until_shown("code 0")
    daemon.stop()


def test_a_job_is_run_and_another_cancelled_by_key(tty: Tmux, daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("ok")
    daemon.install("waits", config=gate.config)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    tty.command(*monitor(daemon.home))
    tty.until_shown("- ok    never ran")
    tty.keys("Tab", "Tab", "r")
    tty.until_shown("run ok poll? y/n")
    tty.keys("y")
    tty.until_shown("+ run: ")
    ((job,),) = daemon.rows("SELECT id FROM job_queue WHERE plugin = 'ok'")
    tty.until_shown(f"+ run: {job}", f". {job[:8]} ok")
    tty.keys("Tab", "Tab", "End", "c")
    tty.until_shown(f"cancel job {job[:8]} (ok poll)? y/n")
    tty.keys("y")
    tty.until_shown(f"+ cancel: job {job} is cancelled", f"x {job[:8]} ok", "error: cancelled by operator")
    assert daemon.job(job) == ("dead", 1, "cancelled by operator")
    tty.keys("c")
    tty.until_shown(f"cancel job {job[:8]} (ok poll)? y/n")
    tty.keys("y")
    tty.until_shown(f"! cancel: job {job} is dead: only a queued")
    tty.keys("Tab", "Tab", "R")
    tty.until_shown("reset plugin ok? y/n")
    tty.keys("y")
    tty.until_shown("+ reset: plugin ok: 0 breakers cleared")
    tty.keys("C-c")
    tty.until_shown("code 130")
    gate.let_through()
    daemon.stop()


def test_it_goes_on_while_the_daemon_is_down(tty: Tmux, daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    tty.command(*monitor(daemon.home))
    tty.until_shown(f"as PID {daemon.pid}")
    daemon.stop()
    tty.until_shown("ductiled  ! not running; the database says:")
    tty.keys("Tab", "Tab", "r")
    tty.until_shown("run ok poll? y/n")
    tty.keys("y")
    tty.until_shown("+ run: ductiled is not running; the job waits until it does; ", "ok poll     1/4   waits ")
    daemon.start()
    tty.until_shown(f"as PID {daemon.pid}", "queue     0 queued, 0 waiting", "+ ok succeeded ")
    tty.keys("q")
    tty.until_shown("code 0")
    daemon.stop()


def test_stopped_and_continued_it_shows_the_screen_again(tty: Tmux, daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    tty.command(*monitor(daemon.home))
    tty.until_shown("ductiled  up ", "q quit")
    tty.keys("C-z")
    assert "q quit" not in "\n".join(tty.until_shown("Stopped"))
    # What the shell is told is echoed again, and nothing that a full screen needs is left.
    tty.keys("clear; echo still $((40 + 2))", "Enter")
    tty.until_shown("still 42")
    tty.resize(100, 30)
    tty.keys("fg", "Enter")
    lines = tty.until_shown("ductiled  up ", "q quit")
    assert (len(lines), len(lines[4])) == (30, 100)
    tty.keys("q")
    assert "q quit" not in "\n".join(tty.until_shown("still 42"))
    daemon.stop()
