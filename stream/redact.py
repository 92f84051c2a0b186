"""Passwords kept out of messages."""

from __future__ import annotations

import re


def redact(text: str) -> str:
    """`text` with the user and password of any URL in it replaced by `***`."""
    # Up to the last @ of the word: an unescaped password may itself hold @ or /. One slash is
    # what a path makes of two.
    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,2})\S*@", r"\1***@", text)
