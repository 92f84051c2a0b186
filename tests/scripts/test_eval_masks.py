import io
import tarfile

import cv2
import numpy as np
import pytest

from scripts.eval_masks import centre_gaussian, mass_on, object_masks


def test_mass_is_the_share_on_the_object():
    weights = np.zeros((4, 4), np.float32)
    weights[0] = [4, 3, 2, 1]
    target = np.zeros((4, 4), np.float32)
    target[0, 0] = target[0, 1] = target[1, 0] = 1
    assert mass_on(weights, target) == pytest.approx(0.7)
    assert mass_on(np.zeros_like(weights), target) == 0


def test_centre_gaussian_is_symmetric_and_highest_in_the_middle():
    gauss = centre_gaussian(9)
    assert np.allclose(gauss, gauss[::-1])
    assert np.allclose(gauss, gauss.T)
    assert gauss.argmax() == 40


def test_object_masks_come_in_frame_order(tmp_path):
    path = tmp_path / "clip.masks.tar"
    with tarfile.open(path, "w") as archive:
        for number in (1, 0):
            image = np.zeros((4, 6), np.uint8)
            image[:, : number + 1] = 1
            raw = cv2.imencode(".png", image)[1].tobytes()
            info = tarfile.TarInfo(f"clip/{number:05d}.png")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    masks = object_masks(path)
    assert [int((m == 255).sum()) for m in masks] == [4, 8]
