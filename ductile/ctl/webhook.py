"""`ductilectl webhook`: the senders of webhooks that have a preset."""

from __future__ import annotations

from typing import Any

from ductile.config import misnamed
from ductile.config.handshakes import HANDSHAKES
from ductile.config.presets import PRESETS, Preset
from ductile.ctl.lookup import quoted
from ductile.ctl.session import Session
from ductile.errors import EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.validation import nearest

_INDENT = "    "


def presets(session: Session, *, name: str | None) -> int:
    """Show every preset, or one, with what to enter at the sender. Raises DuctileError (66) for an unknown name."""
    names = list(PRESETS) if name is None else [_known(name)]
    session.emit([_row(each, PRESETS[each]) for each in names], "".join(_block(each, PRESETS[each]) for each in names))
    return EXIT_OK


def _known(name: str) -> str:
    if name in PRESETS:
        return name
    lowered = name.lower()
    if lowered in misnamed.WITHOUT_HMAC:
        why = f": {misnamed.WITHOUT_HMAC[lowered]}"
    elif lowered in misnamed.SENDERS:
        why = f" (use {misnamed.SENDERS[lowered]})"
    else:
        why = nearest(lowered, PRESETS)
    raise DuctileError(f"no preset {quoted(name)}{why}", exit_code=EXIT_NOT_FOUND)


def _row(name: str, preset: Preset) -> dict[str, Any]:
    return {"preset": name, "senders": list(preset.senders), "enter": preset.enter, "docs": preset.docs,
            "needs": _needs(preset), "signature_header": list(preset.headers), "signed": preset.signed,
            "dedupe": list(preset.dedupe), "success_status": preset.status, "handshake": preset.handshake}


def _needs(preset: Preset) -> list[str]:
    """Return the keys that an endpoint needs beside `preset`."""
    needed = ["secret"]
    if "{url}" in preset.signed:
        needed.append("url")
    if preset.handshake is not None and HANDSHAKES[preset.handshake].token is not None:
        needed.append("verify_token")
    return needed


def _block(name: str, preset: Preset) -> str:
    lines = [f"{name}: {', '.join(preset.senders)}", f"{_INDENT}{preset.enter}"]
    beside = _needs(preset)[1:]
    if beside:
        lines.append(f"{_INDENT}also needs: {', '.join(beside)}")
    if not preset.dedupe:
        lines.append(f"{_INDENT}no delivery id; `dedupe: signature` drops equal deliveries")
    lines.append(f"{_INDENT}{preset.docs}")
    return "".join(f"{line}\n" for line in lines)
