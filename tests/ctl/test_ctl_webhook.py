"""`webhook presets`: every sender that has a preset, and what to enter there."""

from __future__ import annotations

import json

import pytest

from ctl.desk import Desk
from ductile.config.presets import PRESETS


def test_every_preset_is_listed_with_its_sender_and_where_to_read_on(desk: Desk) -> None:
    text = desk.call("webhook", "presets").out
    for name, preset in PRESETS.items():
        assert f"{name}: {', '.join(preset.senders)}\n    {preset.enter}\n" in text
        assert preset.docs.startswith("https://") and f"    {preset.docs}\n" in text


def test_one_preset_says_what_an_endpoint_needs(desk: Desk) -> None:
    [found] = json.loads(desk.call("--json", "webhook", "presets", "oura").out)
    assert (found["preset"], found["needs"], found["handshake"]) == ("oura", ["secret", "verify_token"], "oura")
    assert "also needs: url" in desk.call("webhook", "presets", "square").out


@pytest.mark.parametrize(("name", "hint"), [
    ("githib", " (did you mean 'github'?)"), ("Clerk", " (use svix)"),
    ("telegram", ": it sends a token and no signature: poll getUpdates with a plugin"),
])
def test_an_unknown_preset_is_answered_with_what_to_use(desk: Desk, name: str, hint: str) -> None:
    said = desk.call("webhook", "presets", name)
    assert (said.code, said.err) == (66, f"no preset {name!r}{hint}\n")
