"""All methods by name: what they are and where. No torch, and none of their libraries."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass

from nem.errors import MethodError, MissingError


@dataclass(frozen=True, slots=True)
class Method:
    """A method that needs no decoder.

    Attributes:
        summary: one line for people.
        module, function: where it is; see `nem.method.Map` for its signature.
        of: what it explains: "embedding", "class", or "either" where it takes `of`. Then a
            class is explained where a target is given, else what the method is meant for.
        needs: module of the extra `eval` that it needs; "" for none.
    """

    summary: str
    module: str
    function: str
    of: str = "embedding"
    needs: str = ""


TRAINED = {
    "nem-u": "the trained head of the embedding",
    "nemt": "the trained head of the decided class",
    "ra-nem": "the trained ranking of pixels for the decided class",
    "nemt-target": "the trained head of any class",
}
METHODS = {
    "relax": Method("similarity under random masks", "nem.relax", "relax"),
    "u-relax": Method("RELAX where it is certain", "nem.relax", "u_relax"),
    "umt-relax": Method("1 where RELAX's uncertainty is below its mean", "nem.relax", "umt_relax"),
    "rise": Method("class probability under random masks", "nem.rise", "rise", "class"),
    "extremal": Method(
        "the smooth mask of given area that keeps most", "nem.extremal", "extremal", "either"
    ),
    "saliency": Method(
        "gradient",
        "nem.attribution",
        "saliency",
        "either",
        "captum",
    ),
    "integrated-gradients": Method(
        "gradient along a path from a baseline",
        "nem.attribution",
        "integrated_gradients",
        "either",
        "captum",
    ),
    "gradient-shap": Method(
        "the same at random places of the path",
        "nem.attribution",
        "gradient_shap",
        "either",
        "captum",
    ),
    "smoothgrad": Method(
        "gradient, averaged over noise",
        "nem.attribution",
        "smooth_grad",
        "either",
        "captum",
    ),
    "guided-backprop": Method(
        "gradient through positive parts only",
        "nem.attribution",
        "guided_backprop",
        "either",
        "captum",
    ),
    "forgrad": Method(
        "gradient without high frequencies",
        "nem.forgrad",
        "forgrad",
        "either",
        "captum",
    ),
    "grad-cam": Method(
        "last maps weighted by gradients",
        "nem.cam",
        "grad_cam",
        "either",
        "pytorch_grad_cam",
    ),
    "grad-cam++": Method(
        "the same, weighted per pixel",
        "nem.cam",
        "grad_cam_plus_plus",
        "either",
        "pytorch_grad_cam",
    ),
    "cam": Method("last maps weighted by the classifier's row", "nem.cam", "cam", "class"),
    "lafam": Method("mean of the last maps", "nem.cam", "lafam"),
    "iba": Method("bits a layer must let through", "nem.iba", "iba", "either"),
}


def method_names() -> list[str]:
    """All that `explain` takes, the trained ones first."""
    return [*TRAINED, *METHODS]


def summary(name: str) -> str:
    """One line on a method, for people."""
    check_method(name)
    return TRAINED[name] if name in TRAINED else METHODS[name].summary


def check_method(name: str) -> None:
    """Refuse what is no method.

    Raises:
        MethodError: names the nearest ones.
    """
    names = method_names()
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(names)}"
        raise MethodError(f"method {name!r}: there is none; {hint}")


def check_library(name: str) -> None:
    """Refuse a method whose library isn't installed.

    Raises:
        MissingError: names the extra.
    """
    needs = METHODS[name].needs if name in METHODS else ""
    if needs and importlib.util.find_spec(needs) is None:
        raise MissingError(
            f"method {name} needs {needs}, which is not installed: pip install 'nem-stream[eval]'"
        )


def takes_target(name: str) -> bool:
    """Whether a method can explain a class that is named."""
    return name == "nemt-target" or (name in METHODS and METHODS[name].of != "embedding")
