"""Signals, pipes and stdout, each in a process of its own."""

import json
import os
import pty
import signal
import subprocess
import sys

import av
import pytest

from stream.cli.signals import Interrupts
from tests.builders import make_clip
from tests.stream.cli.support import (
    SECONDS,
    child,
    command,
    environment,
    leave_after_a_line,
    nem_stream,
)

# The engine sends the signals, at frames it knows: no test has to hit a moment.
SELF_SIGNALLING = """
import os, sys, time
from engines.fake import FakeEngine
from stream.cli import main
at = {signals}
honest, seen = FakeEngine._run, []
def run(self, frames, aim, classes):
    seen.append(1)
    for number in at.get(len(seen), ()):
        os.kill(os.getpid(), number)
    time.sleep(0.002)  # as long as a real engine works without the interpreter's lock, at least
    return honest(self, frames, aim, classes)
FakeEngine._run = run
sys.exit(main())
"""


def run_with_signals(signals, *arguments):
    groups = {at: n if isinstance(n, tuple) else (n,) for at, n in signals.items()}
    plain = {at: tuple(map(int, numbers)) for at, numbers in groups.items()}
    code = SELF_SIGNALLING.format(signals=plain)
    return child([sys.executable, "-c", code, *map(str, arguments)])


def frames_in(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def counts(err):
    words = err.strip().splitlines()[-1].split()
    return int(words[0]), int(words[words.index("in,") + 1])


BY_SIGNAL = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)


@BY_SIGNAL
def test_the_first_signal_drains_and_leaves_a_playable_file(tmp_path, fake, number, code):
    clip = make_clip(tmp_path / "clip.mp4", frames=300, audio=True)
    done = run_with_signals({30: number}, clip, *fake)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    read, written = counts(done.stderr)
    assert 30 <= read == written < 100  # all that had been read was finished
    assert "0 dropped" in done.stderr
    assert "cut short" in done.stderr
    assert not (tmp_path / "clip.nem.mp4").exists()
    assert frames_in(tmp_path / "clip.nem.mp4.partial") == written


def test_a_terminal_that_was_closed_ends_no_run(tmp_path, fake):
    pytest.importorskip("skimage")
    output = tmp_path / "demo.mp4"
    near, far = pty.openpty()
    code = SELF_SIGNALLING.format(signals={5: (int(signal.SIGTERM),)})
    code = code.replace("honest,", "os.close(int(sys.argv.pop(1))); honest,")
    arguments = ["demo", output, "--size", "160x120", "--fps", 200, *fake]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(near), *map(str, arguments)],
        env=environment(TERM="xterm"),
        stderr=far,
        pass_fds=[near],
    ) as process:
        os.close(far)
        os.close(near)
        assert process.wait(SECONDS) == 0
    assert frames_in(output) >= 5


def test_what_is_told_goes_into_no_file_where_all_was_closed_before(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=300)
    program = [sys.executable, "-c", SELF_SIGNALLING.format(signals={30: (int(signal.SIGINT),)})]
    line = 'exec "$@" <&- >&- 2>&-'
    assert child(["bash", "-c", line, "bash", *program, str(clip), *fake]).returncode == 130
    partial = tmp_path / "clip.nem.mp4.partial"
    assert b"stopping" not in partial.read_bytes()
    assert frames_in(partial) >= 30


def test_a_log_whose_reader_left_ends_no_run(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=30)
    with subprocess.Popen(
        command(clip, *fake), env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        process.stderr.close()
        assert process.wait(SECONDS) == 0
    assert frames_in(tmp_path / "clip.nem.mp4") == 30


def test_the_second_signal_stops_at_once(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=300)
    done = run_with_signals({30: (signal.SIGINT, signal.SIGTERM)}, clip, *fake)
    assert done.returncode == 130, done.stderr
    read, written = counts(done.stderr)
    assert written < read
    assert "under way when the run was cut short" in done.stderr
    assert "stopped at once" in done.stderr
    assert not (tmp_path / "clip.nem.mp4").exists()
    assert frames_in(tmp_path / "clip.nem.mp4.partial") == written


def test_ending_a_live_source_is_success(tmp_path, fake):
    pytest.importorskip("skimage")
    output = tmp_path / "demo.mp4"
    arguments = ["demo", output, "--size", "160x120", "--fps", 200, *fake]
    done = run_with_signals({5: signal.SIGINT}, *arguments)
    assert done.returncode == 0, done.stderr
    assert frames_in(output) == counts(done.stderr)[1] >= 5


def test_stdout_is_json_lines_only(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    done = nem_stream(clip, "--scores", "-", "-vv", *fake)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["frame"] for row in rows] == list(range(12))
    assert "12 frames in, 12 out" in done.stderr
    assert (tmp_path / "clip.nem.mp4").exists()


def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=300)
    line, code, err = leave_after_a_line(clip, "-o", "none", "--scores", "-", *fake)
    assert json.loads(line)["frame"] == 0
    assert code == 0, err
    assert "rror" not in err


def test_a_list_may_be_cut_by_its_reader(fake):
    with subprocess.Popen(
        command("engines", "list"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        err = process.stderr.read()
        code = process.wait(SECONDS)
    assert (code, err) == (5, "")


@BY_SIGNAL
def test_a_signal_while_the_model_loads_leaves_nothing(tmp_path, fake, number, code):
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    program = f"""
import os, sys
from engines.fake import FakeEngine
from stream.cli import main
FakeEngine.__init__ = lambda self, *a, **k: os.kill(os.getpid(), {int(number)})
sys.exit(main())
"""
    done = child([sys.executable, "-c", program, str(clip), *fake])
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert list(tmp_path.iterdir()) == [clip]


def test_ctrl_c_while_modules_are_imported_ends_in_a_line():
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
class Finder:
    def find_spec(name, *_):
        if name == "stream.cli.console":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from stream.cli import main
sys.exit(main())
"""
    done = child([sys.executable, "-c", program])
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "nem-stream: error: interrupted\n"


def test_a_closed_terminal_ends_nothing_under_nohup(tmp_path, fake):
    clip = make_clip(tmp_path / "clip.mp4", frames=60)
    program = [sys.executable, "-c", SELF_SIGNALLING.format(signals={5: (int(signal.SIGHUP),)})]
    line = 'trap "" HUP; exec "$@"'
    done = child(["bash", "-c", line, "bash", *program, str(clip), *fake])
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "clip.nem.mp4") == 60


def test_a_signal_that_came_to_nothing_ends_the_run_before_it_begins():
    """As in the midst of an import whose error is no reason to end."""
    with Interrupts() as interrupts:
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            interrupts.attach(pytest.fail, pytest.fail)
    assert ended.value.code == 143


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    calls = []
    with Interrupts() as interrupts:
        interrupts.attach(lambda: calls.append("stop"), lambda: calls.append("abort"))
        signal.raise_signal(signal.SIGINT)
        assert (calls, interrupts.number) == (["stop"], signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert (calls, interrupts.number) == (["stop", "abort"], signal.SIGINT)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(SystemExit) as caught, Interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
