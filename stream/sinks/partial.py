"""An output file that gets its name only when it is whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stream.errors import SinkError, UsageError

SUFFIX = ".partial"


class PartialFile:
    """`<name>.partial` beside the output, renamed by `finish`; nothing else ever has the name.

    The constructor creates the file, so that a bad place shows before any frame is computed.

    Args:
        path: the output's name once whole.
        overwrite: replace an existing output, and what an earlier run left of one.
        inputs: files that are read meanwhile and must not be written over.

    Attributes:
        path: as given.
        partial: where the bytes are until then.
        file: to write to, binary.

    Raises:
        UsageError: if the output is one of the inputs, or has no name.
        SinkError: if it exists, is a device, or can't be created here.
    """

    def __init__(
        self, path: str | Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()
    ) -> None:
        self.path = Path(path)
        if not self.path.name:
            raise UsageError(f"output {str(path)!r}: names no file; give a file's name")
        self.partial = self.path.with_name(self.path.name + SUFFIX)
        self._overwrite = overwrite
        for source in inputs:
            if _same(self.path, source) or _same(self.partial, source):
                raise UsageError(
                    f"{self.path}: is also the input {source}; give the output another name"
                )
        self._check_place()
        try:
            if overwrite:  # never the same file: another run may write to it, or it be a link
                self.partial.unlink(missing_ok=True)
            # Buffered: a raw file may take fewer bytes than given, which FFmpeg does not look at.
            self.file = self.partial.open("xb")
            self._own = os.fstat(self.file.fileno())
        except FileExistsError:
            raise SinkError(
                f"{self.partial}: left by a run that was cut short, or still being written; "
                "move it away, or pass --overwrite"
            ) from None
        except OSError as error:
            raise self._refused(error) from error

    def _check_place(self) -> None:
        folder = self.path.parent
        try:
            found = folder.is_dir()
            mode = self.path.stat().st_mode if self.path.exists() else stat.S_IFREG
        except OSError as error:
            raise self._refused(error) from error
        if not found:
            raise SinkError(f"{self.path}: there is no directory {folder}; create it first")
        if stat.S_ISDIR(mode):
            raise SinkError(f"{self.path}: is a directory; give the output a file name in it")
        if not stat.S_ISREG(mode):  # it would be replaced, not written to
            raise SinkError(f"{self.path}: is a device or pipe and no file; give a file's name")
        self._check_free()

    def _refused(self, error: OSError) -> SinkError:
        return SinkError(f"{self.path}: can't write here: {error.strerror}; choose another output")

    def _check_free(self) -> None:
        if not self._overwrite and os.path.lexists(self.path):
            raise SinkError(f"{self.path}: already exists; pass --overwrite or another name")

    def finish(self, data: bytes = b"") -> None:
        """Store the last bytes and give the file its name.

        Args:
            data: bytes to write before.

        Raises:
            SinkError: if they can't be stored, something took the name meanwhile, or the partial
                file was taken away; what there is of it stays.
        """
        try:
            self.file.write(data)
            self.file.flush()
            os.fsync(self.file.fileno())
            if not self._is_own():
                raise SinkError(
                    f"{self.partial}: was removed while it was written, or replaced by another run "
                    "with --overwrite; run again, with an output of its own"
                )
            self.file.close()
            self._check_free()
            self.partial.replace(self.path)
        except SinkError:
            raise
        except OSError as error:
            raise self.failed(error) from error
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the file; what there is of it keeps its partial name. Closing twice is fine."""
        with suppress(OSError):  # bytes that could not be stored were reported when written
            self.file.close()
        with suppress(OSError):
            if self._is_own() and not self.partial.stat().st_size:
                self.partial.unlink()

    def discard(self) -> None:
        """Close and remove the file."""
        own = self._is_own()
        self.leave()
        if own:
            self.partial.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        """Whether the partial name is still that of the file written here."""
        try:
            return os.path.samestat(self._own, self.partial.stat())
        except OSError:
            return False

    def failed(self, error: OSError) -> SinkError:
        """The error for bytes that could not be stored."""
        kept = f"what there is stays in {self.partial.name}; " if self.partial.exists() else ""
        return SinkError(
            f"{self.path}: writing failed: {error.strerror or error}; {kept}"
            "free some space or choose another disk"
        )


def _same(first: Path, second: Path) -> bool:
    """True for two names of one file, links of both kinds included."""
    try:
        return first.samefile(second)
    except OSError:
        return False
