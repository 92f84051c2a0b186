"""Methods on models whose weights are not float32."""

import numpy as np
import pytest
import torch

from nem.errors import ModelError
from nem.methods import explain
from tests.nem.toys import shapes, tiny_nem

PICTURES = shapes(2, 3)[0]


@pytest.mark.parametrize("method", ["nem-u", "relax", "rise", "cam", "lafam", "iba"])
def test_a_model_in_double_precision_gives_the_same_map(method: str) -> None:
    options = {"relax": {"masks": 16}, "rise": {"masks": 16}}.get(method, {})
    found = []
    for dtype in (torch.float32, torch.float64):
        if method == "iba":
            others = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(9))
            options = {"statistics": others.to(dtype), "steps": 2, "samples": 2}
        found.append(explain(method, tiny_nem().to(dtype), PICTURES, **options).raw)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match=r"weights are torch.*16, .*; give model.float\(\)"):
        explain("relax", tiny_nem().to(dtype), PICTURES, masks=2)
