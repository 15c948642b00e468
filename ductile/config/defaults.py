"""Where things are that the configuration says nothing of, as paths from its own directory."""

from __future__ import annotations

STATE_PATH = "./data/state.db"
WORKSPACE_PATH = "./data/ws"
