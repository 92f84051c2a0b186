import argparse

import pytest

from engines.errors import OptionError
from nem.errors import DataError
from scripts.ending import count, launch, new_file
from scripts.make_clip import frame_size
from stream.errors import UsageError


@pytest.mark.parametrize(
    "error", [DataError("a\nb"), OptionError("a b"), UsageError("a b"), OSError("a b")], ids=repr
)
def test_an_error_of_ours_ends_in_a_line(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        launch(main)
    assert end.value.code == "a b"


def test_ctrl_c_and_a_status_are_handed_on_and_bugs_are_not_hidden(capsys):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        launch(stop)
    assert (end.value.code, capsys.readouterr().err) == (130, "interrupted\n")
    with pytest.raises(SystemExit) as end:
        launch(lambda: 1)
    assert end.value.code == 1
    with pytest.raises(ZeroDivisionError):
        launch(lambda: 1 // 0)


def test_arguments_are_checked_before_the_work(tmp_path):
    path = new_file(str(tmp_path / "new" / "found.json"))
    path.write_text("{}")
    assert (count("3"), frame_size("64x48")) == (3, (64, 48))
    for kind, text in (
        (count, "0"),
        (frame_size, "64"),
        (frame_size, "65x48"),
        (frame_size, "0x2"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            kind(text)
