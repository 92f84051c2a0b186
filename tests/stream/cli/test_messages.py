"""What goes wrong is told with its cause and its cure, and ends with the right code."""

import errno
from pathlib import Path

from tests.stream.cli.test_run import last_line


def test_a_path_that_may_not_be_entered_is_no_bug(cli, monkeypatch):
    def denied(self, exists=Path.exists):
        if "locked" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return exists(self)

    monkeypatch.setattr(Path, "exists", denied)
    code, _, err = cli("train", "--model", "resnet18", "--data", "a.png", "--out", "locked/out")
    assert code == 2
    assert last_line(err).startswith("nem-stream: error: locked/out: Permission denied;")
