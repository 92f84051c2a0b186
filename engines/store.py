"""Compiled engines kept on disk, so that the next start is quick.

A compiled engine is executable code, so the folder belongs to the user alone and an entry is only
loaded when its hash is the one noted when it was written. What is damaged is moved aside, said
once, and built anew. A store that can't be used never stops a run.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

import platformdirs

from engines.errors import StoreError
from engines.filelock import exclusive
from engines.store_files import key_of, read_entry, write_entry

WAIT_SECONDS = 120.0
"""How long to wait for another process building the same engine, where a build takes seconds."""

CURE = "set NEM_CACHE to a folder of your own"

T = TypeVar("T")

_log = logging.getLogger(__name__)

_warned: set[tuple[str, Path, type[Exception]]] = set()
_warning = Lock()


def default_folder() -> Path:
    """`engines` in $NEM_CACHE, else in the user's cache folder for nem-stream.

    For a user without a home, as in a container, it is a folder of theirs for temporary files.
    """
    try:
        asked = os.environ.get("NEM_CACHE")
        root = asked or platformdirs.user_cache_dir("nem-stream", appauthor=False)
        return Path(root).expanduser() / "engines"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"nem-stream-{os.geteuid()}", "engines")


class Store:
    """A folder of compiled engines.

    Args:
        folder: default `default_folder()`. Made when needed, open to the user alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def fetch(
        self,
        facts: Mapping[str, str],
        *,
        build: Callable[[], T],
        dump: Callable[[T], bytes],
        load: Callable[[bytes], T],
        wait: float = WAIT_SECONDS,
        say: Callable[[str], None] | None = None,
    ) -> T:
        """The engine for `facts`: from the store, else built and stored.

        Several processes asking for the same engine build it once; the others wait for it.

        Args:
            facts: all that the engine depends on; their hash is the key.
            build: makes the engine; its errors are passed on.
            dump: its bytes; StoreError where it has none.
            load: the engine of such bytes; StoreError counts as damage.
            wait: seconds to wait for another process that builds it, before building it here, too.
            say: told in a line where an engine is kept that was built.

        Returns:
            The engine. Trouble with the store is logged in one line and raises nothing.
        """
        key = key_of(facts)
        with ExitStack() as held:
            try:
                self.prepare()
                found = self._load(key, load, repair=False)
                if found is not None:
                    return found
                held.enter_context(exclusive(self.folder / f"{key}.lock", wait))
                found = self._load(key, load, repair=True)
                if found is not None:
                    return found
            except (OSError, StoreError) as error:
                self._warn("engine store %s not used: %s", error)
                return build()
            made = build()
            try:
                write_entry(self.folder, facts, dump(made))
            except (OSError, StoreError) as error:
                self._warn("engine not kept in store %s: %s", error)
            else:
                if say is not None:
                    what = f"engine {facts['engine']}: compiled {facts['bundle']}"
                    say(f"{what}, kept in {self.folder}")
            return made

    @property
    def troubled(self) -> bool:
        """Whether something could not be read from or kept in its folder by this process."""
        with _warning:
            return any(folder == self.folder for _, folder, _ in _warned)

    def prepare(self) -> None:
        """Make the folder and keep others out of it.

        Raises:
            StoreError: it belongs to another user.
            OSError: it can't be made or looked at.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sys.platform == "win32":
            return
        state = self.folder.stat()
        if state.st_uid != os.geteuid():
            raise StoreError(f"it belongs to another user; {CURE}")
        if state.st_mode & 0o077:
            self.folder.chmod(0o700)

    def _warn(self, text: str, error: Exception) -> None:
        """Log it once: engines, and calls side by side of one, meet the same trouble."""
        why = str(error)
        if isinstance(error, OSError) and error.strerror:  # its file is in the folder named
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = f"{error.strerror}; {'free some space' if full else 'allow it'} or {CURE}"
        with _warning:
            trouble = (text, self.folder, type(error))
            if trouble not in _warned:
                _warned.add(trouble)
                _log.warning(text, self.folder, why)

    def _load(self, key: str, load: Callable[[bytes], T], *, repair: bool) -> T | None:
        """The stored engine, or None. A damaged one is None too, and moved aside by `repair`."""
        blob = self.folder / f"{key}.blob"
        try:
            found = load(read_entry(self.folder, key))
        except FileNotFoundError:
            return None
        except StoreError as error:
            if repair:
                _log.warning("stored engine %s is damaged, building it anew: %s", key[:12], error)
                for path in (blob.with_suffix(".json"), blob):
                    if path.exists():
                        path.replace(path.with_name(f"{path.name}.damaged"))
            return None
        with suppress(OSError):  # a store that can only be read serves as well
            os.utime(blob)  # the time of use, which pruning goes by
        return found
