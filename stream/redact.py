"""Passwords kept out of messages."""

from __future__ import annotations

import re


def redact(text: str) -> str:
    """`text` with the user and password of any URL in it replaced by `***`."""
    return re.sub(r"\S+", _word, text)


def _word(found: re.Match[str]) -> str:
    # Up to the last @ of the word: an unescaped password may itself hold @ or /. One slash is
    # what a path makes of two. Nothing here looks twice at a long word.
    secret, at, rest = found[0].rpartition("@")
    return re.sub(r"(?<=[A-Za-z0-9+.-]{2})(:/{1,2}).*", r"\1***", secret) + at + rest
