"""What key a webhook's secret stands for."""

from __future__ import annotations

import base64

PREFIX = "whsec_"


def key_of(secret: str, format: str) -> bytes:
    """Return the key of HMAC that a secret stands for in a format of signatures, an empty one where it stands for none.

    It is the secret's own bytes; with `standard` (Standard Webhooks) and the prefix `whsec_`, what the rest is base64
    for, with or without its padding.
    """
    if format != "standard" or not secret.startswith(PREFIX):
        return secret.encode("utf-8", "surrogatepass")
    text = secret.removeprefix(PREFIX)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""
