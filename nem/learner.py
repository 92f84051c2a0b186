"""One training step of all heads, as Lightning wants it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from prodigyopt import Prodigy
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from nem.backbone import Features
from nem.config import CHECKPOINT, TrainConfig
from nem.data import Collection, PictureData, normalise
from nem.errors import TrainError
from nem.explanation import AIM_OF, Aim
from nem.model import NEM
from nem.objectives import Seen, aim_terms, draw_targets

SEEDS_APART = 1_000_003
"""More than a training has epochs."""


class Learner(pl.LightningModule):
    """Trains the decoder of `model` on a collection; the backbone stays as it is.

    Args:
        model: the model.
        collection: pictures, already squashed to the model's input size.
        config: the settings.
        recipe: what a continuation must agree on; kept in the checkpoint.
        unit: of the class scores of `nem.losses.class_score`.
        before: the model as it was, for the heads that `config.hold` names.

    Attributes:
        steps: optimiser steps of the whole training, set before it starts.
    """

    def __init__(
        self,
        model: NEM,
        collection: Collection,
        config: TrainConfig,
        recipe: dict[str, Any],
        unit: float = 1.0,
        before: NEM | None = None,
    ) -> None:
        super().__init__()
        # The backbone is no part of the checkpoints, so loading one finds only the decoder.
        self.strict_loading = False
        self.model = model.to(memory_format=torch.channels_last)
        self.collection, self.config, self.recipe = collection, config, recipe
        self.unit = unit
        self.steps = 1
        # In a list, so that it is no part of this module: neither trained nor in checkpoints.
        self._before = [] if before is None else [before.eval()]

    def on_fit_start(self) -> None:
        """Bring what was before to where the training is."""
        for model in self._before:
            model.to(self.device)

    def forward(self, pictures: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Values of uint8 pictures (N, S, S, 3), each (N,): "loss", and those of each head.

        With one head its values keep their names, with several they are called "class_area" etc.
        """
        backbone = self.model.backbone
        x = normalise(pictures, backbone.mean, backbone.std)
        x = x.contiguous(memory_format=torch.channels_last)
        if self.config.flip:
            turned = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
            x = torch.where(turned, x.flip(3), x)
        with torch.no_grad():
            full = backbone(x)
        asked = None
        if "target" in self.model.aims:
            assert full.logits is not None
            asked = draw_targets(full.logits, generator)
        output = self.model.explain(full, x, asked and asked[0], generator=generator)
        held = self._held(full, x, asked and asked[0])
        terms = aim_terms(x, output.maps, full, self.config, generator, self.unit, asked, held)
        seen = self._see([p for term in terms.values() for p in term.pictures])
        values: dict[str, Tensor] = {}
        losses = []
        for aim, term in terms.items():
            judged = term.judge([seen.pop(0) for _ in term.pictures])
            losses.append(judged["loss"])
            values |= {k if len(terms) == 1 else f"{aim}_{k}": v for k, v in judged.items()}
        return {"loss": torch.stack(losses).sum(0)} | values

    @torch.no_grad()
    def _held(self, full: Features, x: Tensor, target: Tensor | None) -> dict[Aim, Tensor]:
        """What the heads that are not to change drew before."""
        aims = {AIM_OF[method] for method in self.config.hold}
        maps = {} if not aims else self._before[0].explain(full, x, target).maps
        return {aim: drawn for aim, drawn in maps.items() if aim in aims}

    def _see(self, pictures: list[Tensor]) -> list[Seen]:
        """One run for all; they are independent, as the backbone is in eval mode."""
        features = self.model.backbone(torch.cat(pictures))
        embeddings = features.embedding.chunk(len(pictures))
        if features.logits is None:
            return [Seen(embedding, None) for embedding in embeddings]
        logits = features.logits.chunk(len(pictures))
        return [Seen(*pair) for pair in zip(embeddings, logits, strict=True)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of a batch.

        Raises:
            TrainError: the loss is not finite; names the batch.
        """
        pictures, index = batch
        # Noise and mirroring depend on the place in the training only, so resuming repeats them.
        place = (self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        generator = torch.Generator(self.device).manual_seed(seed)
        values = self(pictures, generator)
        loss: Tensor = values["loss"].mean()
        if not torch.isfinite(loss):
            raise TrainError(
                self._what_broke(float(loss.detach()), values["loss"], index, batch_idx)
            )
        for name, value in values.items():
            there = value.detach()[~value.detach().isnan()]
            # 0 of 0, as the area of absent classes in a batch without any, counts for nothing; all
            # processes have to tell of the same values.
            mean = there.sum() / max(1, len(there))
            self.log(name, mean, prog_bar=name == "loss", on_step=True, on_epoch=False)
            self.log(
                f"{name}_epoch", mean, on_step=False, on_epoch=True,
                batch_size=len(there), sync_dist=self.trainer.world_size > 1,
            )  # fmt: skip
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End after the last step. Lightning's own `max_steps` can't resume at an epoch's end."""
        if self.global_step >= self.steps:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        """Prodigy, with a cosine over all steps if asked for."""
        config = self.config
        # Prodigy prints a remark on stdout, which carries data only.
        with contextlib.redirect_stdout(io.StringIO()):
            optimiser = Prodigy(
                self.model.decoder.parameters(),
                lr=config.lr,
                weight_decay=config.weight_decay,
                safeguard_warmup=True,
            )
        if not config.cosine:
            return optimiser
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Batches in an order drawn from (seed, epoch), shared out among processes."""
        config, data = self.config, PictureData(self.collection)
        sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(
            data,
            num_replicas=self.trainer.world_size,
            rank=self.trainer.global_rank,
            # The sampler adds the epoch: seeds in a row would shuffle alike, an epoch apart.
            seed=config.seed * SEEDS_APART % 2**63,
        )
        return DataLoader(
            data,
            batch_size=config.batch_size,
            sampler=sampler,
            generator=torch.Generator(),  # else starting an epoch draws from the global one
            # A last, smaller batch would have noisy BatchNorm statistics.
            drop_last=len(sampler) >= config.batch_size,
            num_workers=config.workers,
            pin_memory=self.device.type == "cuda",
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen backbone out."""
        state = checkpoint["state_dict"]
        for name in [n for n in state if n.startswith("model.backbone.")]:
            del state[name]
        checkpoint["recipe"] = self.recipe

    def check_weights(self) -> None:
        """Refuse a decoder that is not finite, before anything of it is shown or stored.

        Raises:
            TrainError: names the first of its weights that is not.
        """
        state = self.model.decoder.state_dict()
        if broken := [n for n, t in state.items() if not torch.isfinite(t).all()]:
            raise TrainError(
                f"decoder weights are not finite after epoch {self.current_epoch + 1} "
                f"(first: {broken[0]}); {self._what_stays()}. Lower the learning rate"
            )

    def _what_broke(self, loss: float, values: Tensor, index: Tensor, batch: int) -> str:
        bad = index[~torch.isfinite(values)].tolist() or index.tolist()
        names = ", ".join(self.collection.items[i].name for i in bad[:3])
        return (
            f"loss is {loss} in epoch {self.current_epoch + 1}, batch {batch + 1} ({names}); "
            f"{self._what_stays()}. Look at those pictures, or lower lr"
        )

    def _what_stays(self) -> str:
        if (Path(self.config.out) / CHECKPOINT).exists():
            return f"the last good checkpoint stays in {self.config.out}"
        return "there is no checkpoint yet"
