"""What all decoders share: heads on the features of a trunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.blend import Blend
from nem.class_layers import Classes
from nem.errors import ModelError
from nem.explanation import AIMS, Aim
from nem.layers import enlarge
from nem.target import TargetHead


class Decoder(nn.Module, ABC):
    """A trunk and its heads.

    All heads but `target` are rows of one 1x1 convolution on the trunk's features, so several
    cost no more than one; `target` also reads the class that is asked for.

    Args:
        backbone: whose maps are read.
        aims: what the heads explain, in the order of the maps.
    """

    def __init__(self, backbone: Backbone, aims: Sequence[Aim]) -> None:
        super().__init__()
        if not aims or len(set(aims)) != len(aims) or set(aims) - set(AIMS):
            raise ModelError(f"aims {list(aims)}: expected some of {', '.join(AIMS)}, each once")
        if set(aims) - {"embedding"} and backbone.num_classes < 2:
            found = "one class" if backbone.num_classes else "no classes"
            raise ModelError(f"aims {list(aims)}: {backbone.name} has {found}, only embedding")
        self.size = backbone.input_size
        self.aims = tuple(aims)
        self.plain = tuple(aim for aim in aims if aim != "target")

    def finish(self, backbone: Backbone, width: int, *, lead: bool = False) -> None:
        """Make the heads on trunk features of `width` channels, and initialise all weights.

        With `lead`, a ranking is completed, see `nem.blend.Blend`.
        """
        channels = backbone.channels[-1]
        self.head = nn.Conv2d(width, len(self.plain), 1) if self.plain else None
        self.target: TargetHead | None = None
        if "target" in self.aims:
            self.target = TargetHead(width, channels, backbone.class_rows().shape[1])
        self.blend: Blend | None = None
        if lead and "ranking" in self.aims:
            dims = backbone.class_rows().shape[1]
            self.blend = Blend(dims, channels, len(self.plain) - 1)
        _initialise(self)

    @property
    def reads_classes(self) -> bool:
        """Whether `forward` needs the classes."""
        return self.target is not None

    def forward(
        self, pyramid: list[Tensor], image: Tensor, classes: Classes | None = None
    ) -> dict[Aim, Tensor]:
        """Logits of each head.

        Args:
            pyramid: the backbone's maps, fine to coarse.
            image: the normalised picture (N, 3, S, S).
            classes: of each picture; needed where `reads_classes`.

        Returns:
            By aim: (N, 1, h, w), unbounded, at the stride that is drawn at.
        """
        features = self.trunk(pyramid, image, classes)
        seen = self._evidence(pyramid[-1], features.shape[-1], classes)
        maps: dict[Aim, Tensor] = {}
        if self.head is not None:
            maps |= zip(self.plain, torch.split(self.head(features), 1, 1), strict=True)
        if self.blend is not None:
            assert classes is not None
            others = [maps[aim] for aim in self.plain if aim != "ranking"]
            own, evidence = maps["ranking"], seen.pop(0)
            maps["ranking"] = self.blend(own, evidence, others, classes.probability)
        if self.target is not None:
            assert classes is not None
            maps["target"] = self.target(features, seen.pop(0), classes)
        return maps

    def _evidence(self, coarse: Tensor, size: int, classes: Classes | None) -> list[Tensor]:
        """The coarsest map (N, channels, H, W), weighted by directions and enlarged: (N, 1, h, h).

        By what favours the decided class, then the asked one; of the two, those with heads for it.
        """
        filters: list[Tensor] = []
        if self.blend is not None:
            assert classes is not None
            filters.append(self.blend.direction(classes.lead))
        if self.target is not None:
            assert classes is not None
            filters.append(self.target.filter(classes.rows, classes.explained))
        if not filters:
            return []
        found = torch.stack(filters, 1) @ coarse.flatten(2)
        found = enlarge(found.view(*found.shape[:2], *coarse.shape[2:]), size)
        return list(torch.split(found, 1, 1))

    @abstractmethod
    def trunk(self, pyramid: list[Tensor], image: Tensor, classes: Classes | None) -> Tensor:
        """Features of all heads (N, width, h, w), h and w at the stride that is drawn at."""


def _initialise(decoder: nn.Module) -> None:
    """Kaiming-normal convolutions, zero biases, BatchNorm at 1 and 0."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
