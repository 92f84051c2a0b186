import pytest

from stream.cli import main
from tests.builders import make_clip
from tests.stream.cli.support import make_paper_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_paper_bundle(tmp_path_factory.mktemp("bundles") / "dummy")


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mp4", frames=20, audio=True)


@pytest.fixture
def fake(bundle):
    """The flags of a run without a model."""
    return ["--model", str(bundle), "--engine", "fake"]


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run the command in this process: (exit code, stdout, stderr)."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run
