"""What is told of other libraries' errors."""

import pytest

from nem.errors import first_line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one\ntwo", "one"),
        ("", "OSError"),
        ("x" * 160, "x" * 160),
        ("x" * 161, "x" * 157 + "..."),  # that something is missing is seen
        ("No file there. Nor in the cache. " + "x" * 161, "No file there. Nor in the cache"),
    ],
)
def test_an_error_is_one_short_line(text: str, told: str) -> None:
    assert first_line(OSError(text)) == told
