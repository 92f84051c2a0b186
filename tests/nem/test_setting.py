"""Settings of the process that several need changed at once."""

from __future__ import annotations

from collections.abc import Callable

from nem.setting import Setting


def test_what_several_threads_need_is_put_back_by_the_last() -> None:
    log: list[str] = []

    def change() -> Callable[[], None]:
        log.append("changed")
        return lambda: log.append("put back")

    setting = Setting(change)
    first, second = setting(), setting()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert log == ["changed"]
    second.__exit__(None, None, None)
    assert log == ["changed", "put back"]
    with setting():
        pass
    assert log == ["changed", "put back"] * 2
