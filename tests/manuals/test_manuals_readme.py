"""What the README and the manuals say in words about what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ductile.scheduler import rows as scheduler_rows
from ductile.scheduler.breaker import CLOSED, Breaker
from support.clock import START
from support.ledger import opened
from support.manuals import section

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
           "thirteen", "fourteen", "fifteen")


def test_the_readme_counts_the_plugins_that_there_are() -> None:
    [told] = re.findall(r"has (\w+) plugins and no editor", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert NUMBERS.index(told) == len(list(ROOT.glob("plugins/*/manifest.yaml")))


def test_plugins_with_an_open_breaker_are_counted_and_not_breakers(tmp_path: Path) -> None:
    entries = section("ductile.yaml.5", "REQUESTS AND ANSWERS", "/healthz").entries
    [entry] = [each for each in entries if each.tag == "plugins_circuit_open"]
    assert entry.text == "Plugins with a circuit breaker that is not closed; null where that cannot be read."
    with opened(tmp_path) as conn:
        for plugin, command, state in (("a", "poll", "open"), ("a", "handle", "half_open"), ("b", "poll", "closed")):
            breaker = CLOSED if state == "closed" else Breaker(state=state, failure_count=3, opened_at=START)
            scheduler_rows.put_breaker(conn, plugin, command, breaker, START)
        assert scheduler_rows.count_open_breakers(conn) == 1


@pytest.mark.parametrize("file", ["etc/ductile/config.yaml", "contrib/man/ductile.yaml.5"])
def test_past_the_depth_of_the_queue_a_scheduled_run_is_not_lost(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "past it webhooks are answered with 503, and scheduled runs are held back and stay due.\n" in text
