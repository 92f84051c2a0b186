import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from nem.bundle import Bundle, open_bundle
from nem.errors import BundleError, DataError
from nem.examples import nearest
from nem.gallery import Gallery, read_gallery
from nem.gallery_build import THUMBNAIL, build_gallery
from nem.pictures import read_image, squash
from tests.nem.toys import shapes, write_pictures


def embed(frames: np.ndarray) -> np.ndarray:
    """Mean colour: nearly the same for a picture and its small copy."""
    return frames.mean(axis=(1, 2), dtype=np.float32)


def with_manifest(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changes))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return with_manifest(open_bundle("nem-tiny"), input_size=48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    pictures = shapes(5, 0)[0]
    write_pictures(folder / "cats", pictures[:2])
    write_pictures(folder / "dogs" / "brown", pictures[2:4])
    write_pictures(folder, np.repeat(pictures[4:], 3, axis=2))  # 192 x 64 pixels
    (folder / "notes.txt").write_text("no picture, not asked for")
    return folder


@pytest.fixture
def gallery(folder: Path, bundle: Bundle) -> Gallery:
    return build_gallery(folder, embed, bundle)


def test_every_picture_is_in_it_whatever_the_batch(folder: Path, bundle: Bundle) -> None:
    paths = ["000.png", "cats/000.png", "cats/001.png", "dogs/brown/000.png", "dogs/brown/001.png"]
    right = embed(np.stack([squash(read_image(folder / path), 48) for path in paths]))
    for size in (1, 2, 5, 32):  # 2 leaves a partial batch
        shapes_seen, told = [], []

        def seen(frames: np.ndarray, shapes_seen: list[tuple[int, ...]] = shapes_seen):
            shapes_seen.append(frames.shape)
            assert frames.dtype == np.uint8
            return embed(frames)

        built = build_gallery(
            folder, seen, bundle, batch_size=size, progress=lambda *n, told=told: told.append(n)
        )
        assert built.manifest.names == tuple(paths)
        assert built.manifest.labels == ("", "cats", "cats", "dogs", "dogs")
        assert built.manifest.skipped == ()
        np.testing.assert_array_equal(built.embeddings, right)
        assert built.embeddings.dtype == np.float32
        assert max(shape[0] for shape in shapes_seen) == min(size, 5)
        assert {shape[1:] for shape in shapes_seen} == {(48, 48, 3)}
        assert told == [(n, 5) for n in range(1, 6)]


def test_small_pictures_keep_their_shape_and_look(gallery: Gallery, folder: Path) -> None:
    assert gallery.thumbnail(0).shape == (32, THUMBNAIL, 3)
    assert gallery.thumbnail(1).shape == (64, 64, 3)  # never enlarged
    for index, name in enumerate(gallery.manifest.names[1:], 1):
        apart = gallery.thumbnail(index).astype(int) - read_image(folder / name)
        assert abs(apart).mean() < 12


def test_a_file_gives_back_the_gallery(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(gallery.to_bytes())
    read = read_gallery(path)
    assert read.manifest == gallery.manifest
    assert len(read) == 5
    np.testing.assert_array_equal(read.embeddings, gallery.embeddings)
    for index in range(5):
        np.testing.assert_array_equal(read.thumbnail(index), gallery.thumbnail(index))
    assert nearest(gallery.embeddings, read.embeddings, 1).indices[:, 0].tolist() == [*range(5)]
    assert gallery.to_bytes() == read.to_bytes()


def test_reading_loads_no_torch(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(gallery.to_bytes())
    code = (
        "import sys; from pathlib import Path; import nem.examples, nem.gallery_build\n"
        "from nem.gallery import read_gallery\n"
        f"g = read_gallery(Path({str(path)!r})); g.thumbnail(0)\n"
        "print({'torch', 'openvino'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_unreadable_pictures_are_skipped_and_listed(folder: Path, bundle: Bundle) -> None:
    (folder / "cats" / "bad.jpg").write_bytes(b"no picture")
    (folder / "zz.png").write_bytes(b"")  # the last one: the batch before it is still embedded
    (folder / "folder.png").mkdir()
    built = build_gallery(folder, embed, bundle, batch_size=3)
    assert len(built) == 5
    found = {skipped.name: skipped.reason for skipped in built.manifest.skipped}
    assert found == {"cats/bad.jpg": "not a readable image", "zz.png": "empty file"}


def test_a_folder_that_can_not_be_listed_is_told(
    folder: Path, bundle: Bundle, lock: Callable[[str], None]
) -> None:
    lock("cats")
    built = build_gallery(folder, embed, bundle)
    told = [(skipped.name, skipped.reason) for skipped in built.manifest.skipped]
    assert told == [("cats", "folder can't be read: Permission denied")]


def test_names_that_are_no_text(tmp_path: Path, bundle: Bundle) -> None:
    write_pictures(tmp_path / "p", shapes(1, 0)[0])
    (tmp_path / "p" / "000.png").rename(tmp_path / "p" / os.fsdecode(b"caf\xe9.png"))
    write_pictures(tmp_path / "p", shapes(1, 0)[0])
    (tmp_path / "p" / "000.png").rename(tmp_path / "p" / os.fsdecode(b"caf\xe8.png"))
    built = build_gallery(str(tmp_path / "p"), embed, bundle)
    assert built.manifest.names == ("caf\\udce8.png", "caf\\udce9.png")
    (tmp_path / "g").write_bytes(built.to_bytes())
    assert read_gallery(str(tmp_path / "g")).manifest == built.manifest


def test_nothing_to_build_from_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    def build() -> None:
        build_gallery(tmp_path / "p", embed, bundle)

    with pytest.raises(DataError, match="expected a folder of pictures, found nothing"):
        build()
    (tmp_path / "p").mkdir()
    with pytest.raises(DataError, match="no picture in it; give a folder"):
        build()
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture in it \(1 unreadable, first: not a readable"):
        build()
    with pytest.raises(DataError, match="found a file"):
        build_gallery(tmp_path / "p" / "bad.png", embed, bundle)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda frames: embed(frames) * np.nan,
        lambda frames: embed(frames)[:1],
        lambda frames: embed(frames)[0],
        lambda frames: embed(frames)[:, : len(frames)],
    ],
)
def test_embeddings_that_are_none_are_refused(folder: Path, bundle: Bundle, wrong) -> None:
    with pytest.raises(DataError, match="embeddings"):
        build_gallery(folder, wrong, bundle, batch_size=2)


def test_another_bundle_is_refused_with_both_hashes(gallery: Gallery, bundle: Bundle) -> None:
    gallery.check(bundle)
    gallery.check(with_manifest(bundle, name="other"))  # a name is no model
    other = bundle.manifest.backbone.model_copy(update={"sha256": "f" * 64})
    with pytest.raises(BundleError, match="ffffffffffff") as caught:
        gallery.check(with_manifest(bundle, name="other", backbone=other))
    assert bundle.manifest.backbone.sha256[:12] in str(caught.value)
    assert {"nem-tiny", "other"} <= set(str(caught.value).split())
    for change in ({"input_size": 64}, {"mean": (0.1, 0.2, 0.3)}, {"std": (0.1, 0.2, 0.3)}):
        with pytest.raises(BundleError, match="build the gallery again"):
            gallery.check(with_manifest(bundle, **change))


def changed(gallery: Gallery, manifest: dict[str, object] | None = None, **tensors: np.ndarray):
    """The bytes of a gallery with other tensors, or other values in its manifest."""
    values = json.loads(gallery.manifest.model_dump_json()) | (manifest or {})
    return save(load(gallery.to_bytes()) | tensors, {"nem.gallery": json.dumps(values)})


def strange_type(gallery: Gallery) -> bytes:
    header: dict[str, object] = {
        "__metadata__": {"nem.gallery": gallery.manifest.model_dump_json()}
    }
    header["embeddings"] = {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


@pytest.mark.parametrize(
    ("damage", "say"),
    [
        (lambda g: b"", "can't be read"),
        (lambda g: g.to_bytes()[:-1], "can't be read"),
        (lambda g: b"\x80\x04pickle" * 9, "can't be read"),
        (strange_type, "can't be read"),
        (lambda g: save({"a": np.zeros(3)}), "no gallery"),
        (lambda g: save({"a": np.zeros(3)}, {"nem.gallery": "{"}), "manifest"),
        (lambda g: changed(g, {"format": 2}), "manifest: format"),
        (lambda g: changed(g, {"bundle": "owner/name"}), "manifest: bundle"),
        (lambda g: changed(g, {"names": ["one"]}), "1 names for 5 embeddings"),
        (lambda g: changed(g, {"labels": ["one"]}), "names for 5"),
        (lambda g: changed(g, embeddings=g.embeddings.astype(np.float64)), "embeddings float64"),
        (lambda g: changed(g, embeddings=g.embeddings * np.nan), "not finite"),
        (lambda g: changed(g, thumbnails=g.thumbnails[:9]), "offsets don't fit"),
        (lambda g: changed(g, thumbnails=g.thumbnails.view(np.int8)), "thumbnails int8"),
        (lambda g: changed(g, offsets=g.offsets[::-1].copy()), "offsets don't fit"),
        (lambda g: changed(g, offsets=g.offsets[:2]), r"offsets int64 \(2,\)"),
    ],
)
def test_damaged_files_are_refused(gallery: Gallery, tmp_path: Path, damage, say: str) -> None:
    path = tmp_path / "g"
    path.write_bytes(damage(gallery))
    with pytest.raises(DataError, match=say) as caught:
        read_gallery(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_gallery(tmp_path / "gone")
    with pytest.raises(DataError, match="can't be read: Is a directory"):
        read_gallery(tmp_path)


def test_a_damaged_small_picture_costs_only_itself(gallery: Gallery, tmp_path: Path) -> None:
    noise = gallery.thumbnails.copy()
    noise[: gallery.offsets[1]] = 7
    (tmp_path / "g").write_bytes(changed(gallery, thumbnails=noise))
    read = read_gallery(tmp_path / "g")
    with pytest.raises(DataError, match=r"small picture of 000\.png is damaged"):
        read.thumbnail(0)
    assert read.thumbnail(1).shape == (64, 64, 3)
