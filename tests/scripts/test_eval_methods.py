import io
import json
import sys
import tarfile

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

from nem.explanation import AIMS
from nem.methods import explain
from scripts import eval_methods
from scripts.eval_methods import absent_share, judge, localise
from scripts.eval_methods_data import davis_frames, labelled
from scripts.eval_methods_table import print_result, save, start, verdicts
from tests.builders import make_clip
from tests.nem.toys import SIZE, shapes, tiny_nem, write_tiny_bundle

IMAGES, _, TRUTH = shapes(2, 0)


@pytest.fixture(scope="module")
def model():
    return tiny_nem(aims=AIMS)


def write_classes(folder):
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            grey = np.full((8, 8, 3), 40 * index + 20 * (name == "b"), np.uint8)
            cv2.imwrite(str(folder / name / f"{index}.png"), grey)
    (folder / "a" / "notes.txt").write_text("no picture")
    return folder


def test_pictures_are_drawn_by_seed_with_their_class(tmp_path):
    folder = write_classes(tmp_path / "val")
    one, same, other = (labelled(folder, 16, 5, seed) for seed in (0, 0, 1))
    assert len(one) == 5
    assert one[0][0].shape == (16, 16, 3)
    values = [[int(p[0, 0, 0]) for p, _ in drawn] for drawn in (one, same, other)]
    assert values[0] == values[1] != values[2]
    assert all(label == ("b" if value % 40 else "a") for (_, label), value in
               zip(one, values[0], strict=True))  # fmt: skip
    assert len(labelled(folder, 16, 99, 0)) == 8
    with pytest.raises(SystemExit, match="found none"):
        labelled(tmp_path / "nothing", 16, 5, 0)


def test_video_frames_come_with_their_objects(tmp_path):
    with tarfile.open(tmp_path / "clip.masks.tar", "w") as archive:
        for number in range(7):
            image = np.zeros((64, 96), np.uint8)
            image[:number] = 1
            raw = cv2.imencode(".png", image)[1].tobytes()
            info = tarfile.TarInfo(f"clip/{number:05d}.png")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    make_clip(tmp_path / "clip.mp4", frames=7)
    frames = davis_frames(tmp_path, 32, every=3, limit=9)
    assert [int((truth == 255).sum()) // 96 for _, truth in frames] == [0, 3, 6]
    assert frames[0][0].shape == (32, 32, 3)
    two = davis_frames(tmp_path, 32, every=3, limit=2)
    assert [int((truth == 255).sum()) // 96 for _, truth in two] == [0, 6]
    with pytest.raises(SystemExit, match="found none"):
        davis_frames(tmp_path / "nothing", 32, 1, 1)


@pytest.mark.parametrize(("method", "forwards"), [("nem-u", 1), ("centre", 0), ("relax", 31)])
def test_figures_are_in_their_ranges(model, method, forwards):
    row = judge(method, model, IMAGES, 0, masks=0.01)
    assert (row["forwards"], row["backwards"]) == (forwards, 0)
    assert row["faith"] == pytest.approx(row["insertion"] - row["deletion"], abs=1e-5)
    assert all(0 <= row[k] <= 1 for k in ("insertion", "deletion", "gini", "area"))
    assert -2 <= row["faith-emb"] <= 2
    assert row["faith-emb"] != row["faith"]
    assert 0 < row["entropy"] <= np.log(SIZE * SIZE)
    assert (row["ms"] == 0) == (method == "centre")


def test_pictures_are_told_apart_by_how_sure_the_model_is(model, monkeypatch):
    scores = explain("nem-u", model, IMAGES).scores.max(1)
    alone = [judge("nem-u", model, IMAGES[i : i + 1], i, 1.0)["faith"] for i in (0, 1)]
    order = np.argsort(scores)
    assert scores[order[1]] - scores[order[0]] > 1e-4
    monkeypatch.setattr(eval_methods, "SURE", float(scores.mean()))
    row = judge("nem-u", model, IMAGES, 0, 1.0)
    assert row["faith-unsure"] == pytest.approx(alone[order[0]], abs=1e-3)
    assert row["faith-sure"] == pytest.approx(alone[order[1]], abs=1e-3)
    monkeypatch.setattr(eval_methods, "SURE", 2.0)
    row = judge("nem-u", model, IMAGES, 0, 1.0)
    assert np.isnan(row["faith-sure"])
    assert row["faith-unsure"] == pytest.approx(row["faith"])


def test_a_map_without_knowledge_lies_on_objects_by_their_area(model):
    marked = [(p, t * np.uint8(255)) for p, t in zip(IMAGES, TRUTH, strict=True)]
    nothing = (IMAGES[0], np.zeros_like(TRUTH[0]))  # no object: left out
    found = localise("random", model, [*marked, nothing], 0, 1.0)
    assert found["mass"] == pytest.approx(TRUTH.mean(), abs=0.03)
    assert found["rank"] == pytest.approx(TRUTH.mean(), abs=0.06)


def test_absent_classes_are_neither_the_label_nor_probable(model, monkeypatch):
    asked = []

    def watch(method, model, picture, target=None, **options):
        if target is not None:
            asked.append(target)
        return explain(method, model, picture, target, **options)

    monkeypatch.setattr(eval_methods, "explain", watch)
    monkeypatch.setattr(model.backbone, "classes", tuple("abcde"))
    share = absent_share(model, [(IMAGES[0], "c"), (IMAGES[1], "unknown")], 0)
    scores = explain("nem-u", model, IMAGES).scores
    assert asked[0] == 2
    assert asked[1] != 2
    assert asked[2] == scores[1].argmax()  # an unknown label gives way to the decision
    assert asked[3] == scores[1].argmin()  # of 5 classes, all but one count as probable
    maps = [
        explain("nemt-target", model, IMAGES[i // 2], t).mask.mean() for i, t in enumerate(asked)
    ]
    assert share == pytest.approx((maps[1] + maps[3]) / (maps[0] + maps[2]), rel=1e-5)


def test_verdicts():
    rows = {
        "ra-nem": {"faith": 0.5},
        "rise": {"faith": 0.4},
        "grad-cam++": {"faith": 0.48, "mass-coco": 0.5, "mass-davis": 0.3},
        "nemt": {"mass-coco": 0.5, "mass-davis": 0.29},
        "nem-u": {"mass-coco": 0.6, "entropy": 8.0, "mass-davis": 0.35},
        "relax": {"mass-coco": 0.49, "entropy": 8.6, "mass-davis": 0.3},
    }
    states = [line.split()[0] for line in verdicts(rows, 0.2)]
    assert states == ["MISSED", "met", "met", "MISSED", "met", "MISSED", "met", "met"]
    rows["ra-nem"]["faith"], rows["nem-u"]["entropy"] = 0.52, 8.2
    states = [line.split()[0] for line in verdicts(rows, 0.26)]
    assert (states[0], states[6], states[7]) == ("met", "MISSED", "MISSED")
    assert [line.split()[0] for line in verdicts({})] == ["open"] * 8
    rows["nemt"]["mass-coco"] = float("nan")
    assert verdicts(rows)[2].startswith("MISSED")


def test_a_table_goes_on_only_as_it_began(tmp_path):
    path = tmp_path / "table.json"
    first = start(path, {"limit": 4})
    first["rows"]["cam"] = {"faith": 0.5}
    save(path, first)
    assert start(path, {"limit": 4}) == first
    with pytest.raises(SystemExit, match=r"limit 4 \(now 5\)"):
        start(path, {"limit": 5})
    path.write_text("[]")
    with pytest.raises(SystemExit, match="not a table"):
        start(path, {"limit": 4})


def test_a_run_is_kept_and_continued(tmp_path, monkeypatch, capsys):
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_nem(aims=("embedding",)))
    data = write_classes(tmp_path / "val")
    table = tmp_path / "table.json"

    def call(methods):
        words = ["--data", str(data), "--model", str(bundle.path), "--methods", methods]
        words += ["--limit", "2", "--masks", "0.002", "--json", str(table)]
        monkeypatch.setattr(sys, "argv", ["eval_methods", *words])
        eval_methods.main()
        return capsys.readouterr()

    shown = call("centre,nemt")
    assert "nemt: left out: method nemt: the model has no head for it" in shown.err
    kept = json.loads(table.read_text())
    assert set(kept["rows"]) == {"centre"}
    assert set(kept["left_out"]) == {"nemt"}
    judged = []
    real = eval_methods.judge
    monkeypatch.setattr(
        eval_methods, "judge", lambda name, *rest: judged.append(name) or real(name, *rest)
    )
    shown = call("centre,nem-u")
    assert judged == ["nem-u"]
    again = json.loads(table.read_text())
    assert again["rows"]["centre"] == kept["rows"]["centre"]
    assert [line.split()[0] for line in shown.out.splitlines()[1:3]] == ["centre", "nem-u"]
    assert "0.002 of RELAX's" in shown.out


def test_what_was_left_out_is_printed(capsys):
    print_result(
        {
            "settings": {"masks": 1},
            "rows": {"cam": {"faith": 0.25}, "rise": {"mass-coco": 0.5}},
            "left_out": {"iba": "no library"},
            "absent_over_true": 0.125,
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["faith", "mass-coco"]
    assert lines[1].split() == ["cam", "0.250"]
    assert lines[3].split(maxsplit=1) == ["iba", "left out: no library"]
    assert lines[-1].startswith("met    absent class over true class 0.125")
