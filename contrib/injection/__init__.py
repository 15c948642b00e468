"""Faults injected into the real programs, and an oracle that says what was lost or doubled: `contrib/faults`."""
