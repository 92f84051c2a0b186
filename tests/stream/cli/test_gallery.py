import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from nem.bundle import open_bundle
from nem.gallery import read_gallery
from tests.nem.toys import write_pictures
from tests.stream.cli.support import make_paper_bundle

GREYS = (20, 60, 100, 200)


@pytest.fixture
def folder(tmp_path):
    """Flat grey pictures, two dark ones and two light ones; the fake engine embeds the colour."""
    pictures = np.stack([np.full((24, 40, 3), grey, np.uint8) for grey in GREYS])
    write_pictures(tmp_path / "photos" / "dark", pictures[:2])
    write_pictures(tmp_path / "photos" / "light", pictures[2:])
    return tmp_path / "photos"


@pytest.fixture
def image(tmp_path):
    write_pictures(tmp_path / "query", np.full((1, 30, 30, 3), 70, np.uint8))
    return tmp_path / "query" / "000.png"


@pytest.fixture
def built(cli, fake, folder):
    code, out, err = cli("gallery", "build", folder, *fake)
    assert (code, out) == (0, "")
    return folder.with_name("photos.gallery.safetensors"), err


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_command_that_is_told_works_with_spaces_in_the_name(cli, fake, folder, image):
    folder = folder.rename(folder.with_name("my photos"))
    code, _, err = cli("gallery", "build", folder, *fake)
    assert code == 0
    program, *told = shlex.split(err.strip().rpartition("use it with ")[2])
    assert program == "nem-stream"
    code, out, err = cli(*told[:-1], image, *fake)
    assert (code, len(out.splitlines()) > 0) == (0, True), err


def test_build_writes_beside_the_folder_and_says_so(built, folder):
    path, err = built
    gallery = read_gallery(path)
    assert gallery.manifest.names == (
        "dark/000.png",
        "dark/001.png",
        "light/000.png",
        "light/001.png",
    )
    assert gallery.manifest.labels == ("dark", "dark", "light", "light")
    assert gallery.manifest.bundle == "dummy"
    np.testing.assert_allclose(
        gallery.embeddings, np.repeat(np.array(GREYS)[:, None] / 255, 3, 1), atol=1e-4
    )
    assert f"written: {path}, 4 pictures, 0 skipped" in err
    assert names_in(folder.parent) == {"photos", path.name}


def test_an_existing_file_is_replaced_only_when_asked(cli, fake, folder, built):
    path, _ = built
    before = path.read_bytes()
    shutil.rmtree(folder / "light")
    code, out, err = cli("gallery", "build", folder, *fake)
    assert (code, out) == (5, "")
    assert "already exists; pass --overwrite" in err
    assert path.read_bytes() == before
    assert cli("gallery", "build", folder, "--overwrite", "--quiet", *fake) == (0, "", "")
    assert len(read_gallery(path)) == 2


def test_out_chooses_the_file(cli, fake, folder, tmp_path):
    code, _, _ = cli("gallery", "build", folder, "--out", tmp_path / "mine", *fake)
    assert code == 0
    assert len(read_gallery(tmp_path / "mine")) == 4
    code, _, err = cli("gallery", "build", folder, "--out", tmp_path / "no" / "mine", *fake)
    assert code == 5
    assert "no directory" in err


def test_skipped_pictures_are_counted_and_listed(cli, fake, folder):
    for index in range(22):
        (folder / f"bad{index:02d}.jpg").write_bytes(b"no picture")
    (folder / "bad\x1b[31m.jpg").write_bytes(b"no picture")
    code, _, err = cli("gallery", "build", folder, *fake)
    assert code == 0
    assert "4 pictures, 23 skipped" in err
    assert "skipped: bad00.jpg: not a readable image" in err
    assert err.count("skipped: bad") == 20
    assert "skipped: 3 more; -v names all" in err
    assert "\x1b" not in err
    _, _, err = cli("gallery", "build", folder, "--overwrite", "-v", *fake)
    assert err.count("skipped: bad") == 23


@pytest.mark.parametrize(
    ("content", "say"),
    [(None, "found nothing"), ({}, "no picture in it"), ({"a.png": b""}, "1 unreadable")],
)
def test_nothing_to_build_from_leaves_nothing(cli, fake, tmp_path, content, say):
    folder = tmp_path / "empty"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    before = names_in(tmp_path)
    code, out, err = cli("gallery", "build", folder, *fake)
    assert (code, out) == (3, "")
    assert say in err
    assert len(err.strip().splitlines()) == 1
    assert names_in(tmp_path) == before


def test_an_interrupted_build_leaves_nothing(cli, fake, folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("stream.cli.gallery.build_gallery", interrupted)
    before = names_in(folder.parent)
    assert cli("gallery", "build", folder, *fake)[0] == 130
    assert names_in(folder.parent) == before


def test_the_name_is_given_only_to_a_whole_file(cli, fake, folder, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = cli("gallery", "build", folder, *fake)
    assert code == 5
    assert "No space left" in err
    assert names_in(folder.parent) == {"photos", "photos.gallery.safetensors.partial"}


def test_nearest_prints_data_on_stdout_only(cli, fake, built, image):
    code, out, err = cli("gallery", "nearest", built[0], image, "-k", 3, *fake)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [row[2:] for row in rows] == [
        ["dark", "dark/001.png"],
        ["light", "light/000.png"],
        ["dark", "dark/000.png"],
    ]
    assert float(rows[0][0]) == pytest.approx(10 / 255 * 3**0.5, rel=1e-3)
    assert float(rows[0][1]) == pytest.approx(255 / 10 / 3**0.5, rel=1e-3)


def test_nearest_as_json(cli, fake, built, image):
    code, out, _ = cli("gallery", "nearest", built[0], image, "-k", 99, "--json", *fake)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 4  # all there are
    assert lines[0].keys() == {"distance", "weight", "label", "name"}
    assert lines[0]["name"] == "dark/001.png"
    distances = [line["distance"] for line in lines]
    assert distances == sorted(distances)


def test_mix_prints_the_shares(cli, fake, built, image):
    code, out, err = cli("gallery", "mix", built[0], image, *fake)
    assert code == 0
    shares = [(float(line.split()[0]), line.split()[2]) for line in out.splitlines()]
    assert sum(share for share, _ in shares) == pytest.approx(1, abs=1e-3)
    greys = dict(zip(read_gallery(built[0]).manifest.names, GREYS, strict=True))
    assert sum(share * greys[name] for share, name in shares) == pytest.approx(70, abs=0.1)
    assert "the nearest one alone is at 0.0679" in err
    code, out, err = cli("gallery", "mix", built[0], image, "--json", "-k", 1, *fake)
    line = json.loads(out)
    assert line["share"] == pytest.approx(shares[0][0], rel=1e-3)
    assert line["residual"] == pytest.approx(0, abs=1e-6)


def test_another_bundle_is_refused_with_both_hashes(cli, built, image, tmp_path):
    other = make_paper_bundle(tmp_path / "other", bias=1)
    code, out, err = cli("gallery", "nearest", built[0], image, "-m", other, "--engine", "fake")
    assert (code, out) == (6, "")
    theirs = open_bundle(other).manifest.backbone.sha256
    for backbone in (read_gallery(built[0]).manifest.backbone, theirs):
        assert backbone[:12] in err


def test_a_gallery_leads_to_embedded_bundles_only(cli, built, image):
    code, out, err = cli("gallery", "nearest", built[0], image, "--engine", "fake")
    assert (code, out) == (2, "")
    assert "built with bundle dummy; say where it is: --model BUNDLE" in err


def test_what_can_not_be_read_is_told(cli, fake, built, image, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    for file, picture, say in (
        (
            built[0],
            bad,
            "bad.png: picture can't be read: not a readable image; check that a viewer shows it",
        ),
        (
            built[0],
            tmp_path / "gone.png",
            "gone.png: picture can't be read: No such file or directory; check the path",
        ),
        (bad, image, "bad.png: can't be read"),
        (tmp_path / "gone", image, "gone: no such file"),
    ):
        for command in ("nearest", "mix"):
            code, out, err = cli("gallery", command, file, picture, *fake)
            assert (code, out) == (3, "")
            assert say in err
    code, _, err = cli("gallery", "nearest", built[0], image, "-k", 0, *fake)
    assert code == 2
    assert "-k" in err


@pytest.mark.parametrize("command", ["build", "nearest", "mix"])
def test_help_fits_a_terminal(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli("gallery", command, "--help")
    assert code == 0
    assert "--model" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_embedded_bundle_finds_a_picture_again(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NEM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    folder = write_pictures(tmp_path / "photos", coarse.repeat(20, 1).repeat(20, 2))
    path = tmp_path / "photos.gallery.safetensors"
    assert cli("gallery", "build", folder)[0] == 0
    code, out, _ = cli("gallery", "nearest", path, folder / "001.png", "--json", "-k", 2)
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert first["name"] == "001.png"
    assert first["distance"] < 1e-3 < second["distance"]


def test_a_picture_of_the_gallery_is_never_written_over(cli, fake, folder):
    picture = next(folder.rglob("*.png"))
    before = picture.read_bytes()
    code, _, err = cli("gallery", "build", folder, "-o", picture, "--overwrite", *fake)
    assert code == 2
    assert "also the input" in err
    assert picture.read_bytes() == before
