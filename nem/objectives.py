"""What each method asks of its head, in two steps, so that one run of the backbone serves all.

A `Term` names the masked pictures its loss wants to see; once the backbone has seen the pictures of
all terms in one batch, `judge` turns what it saw into values per picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nem.backbone import Features
from nem.config import TrainConfig
from nem.explanation import Aim
from nem.losses import class_score, nem_u_loss, nemt_loss, ra_nem_loss, target_loss
from nem.masking import hide, replacements
from nem.topk import draw_counts, topk_mask

ARGMAX_SHARE, TOP_SHARE = 0.5, 0.3
"""Of the classes asked of the target head; the rest are absent ones."""
TOP = 5

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Seen:
    """What the backbone made of one term's pictures: embedding (N, D), logits (N, C) or None."""

    embedding: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Term:
    """One head's part of a step.

    Attributes:
        pictures: masked pictures to be seen, each (N, 3, S, S).
        judge: what was seen of them, in order, to values (N,); "loss" among them.
    """

    pictures: list[Tensor]
    judge: Callable[[list[Seen]], Values]


def absent_from(classes: int) -> int:
    """The place in the order of probability from which on a class counts as absent."""
    return min(classes - 1, max(TOP, classes // 5))


def draw_targets(logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes to ask the target head for.

    The best one (50 %), one of the best five (30 %), or one that is not there (20 %): from the
    less probable four fifths.

    Args:
        logits: (N, C), C >= 2.
        generator: on the device of `logits`.

    Returns:
        int64 (N,), and bool (N,): absent.
    """
    n, classes = logits.shape
    order = logits.argsort(dim=1, descending=True)
    far = absent_from(classes)
    u = torch.rand(2, n, generator=generator, device=logits.device)
    absent = u[0] >= ARGMAX_SHARE + TOP_SHARE
    among_top = (u[0] >= ARGMAX_SHARE) & ~absent
    place = torch.where(among_top, (u[1] * min(TOP, far)).long(), torch.zeros_like(order[:, 0]))
    place = torch.where(absent, far + (u[1] * (classes - far)).long(), place)
    place = place.clamp(max=classes - 1)
    return order.gather(1, place[:, None]).squeeze(1), absent


def embedding_term(
    x: Tensor, mask: Tensor, full: Features, config: TrainConfig, gen: torch.Generator
) -> Term:
    """NEM-U."""

    def judge(seen: list[Seen]) -> Values:
        kept, hidden = seen[0].embedding, seen[1].embedding
        return nem_u_loss(
            full.embedding, kept, hidden, mask, config.loss, area_weight=config.area_weight
        )._asdict()

    parts = [hide(x, mask, config.fill, gen), hide(x, 1 - mask, config.fill, gen)]
    return Term(parts, judge)


def class_term(
    x: Tensor, mask: Tensor, full: Features, config: TrainConfig, gen: torch.Generator, unit: float
) -> Term:
    """NEMt, of the most probable class."""
    logits = _logits(full.logits)
    target = logits.argmax(1)
    before = class_score(logits, target, config.score, unit)

    def judge(seen: list[Seen]) -> Values:
        after = class_score(_logits(seen[0].logits), target, config.score, unit)
        loss = nemt_loss(before, after, mask, config.class_area_weight)
        return {"loss": loss, "drop": before - after, "area": mask.flatten(1).mean(1)}

    return Term([hide(x, 1 - mask, config.fill, gen)], judge)


def target_term(
    x: Tensor,
    mask: Tensor,
    full: Features,
    config: TrainConfig,
    gen: torch.Generator,
    unit: float,
    target: Tensor,
    absent: Tensor,
) -> Term:
    """The class-conditional head, of classes drawn by `draw_targets`."""
    before = class_score(_logits(full.logits), target, config.score, unit)
    area = mask.flatten(1).mean(1)

    def judge(seen: list[Seen]) -> Values:
        after, alone = (class_score(_logits(s.logits), target, config.score, unit) for s in seen)
        loss = target_loss(before, after, alone, mask, absent, config.class_area_weight)
        nothing = torch.full_like(area, torch.nan)
        return {
            "loss": loss,
            "drop": torch.where(absent, nothing, before - after),
            "area": torch.where(absent, nothing, area),
            "absent_area": torch.where(absent, area, nothing),
        }

    return Term([hide(x, 1 - mask, config.fill, gen), hide(x, mask, config.fill, gen)], judge)


def ranking_term(
    x: Tensor, logits: Tensor, full: Features, config: TrainConfig, gen: torch.Generator
) -> Term:
    """Ra-NEM, of the most probable class."""
    target = _logits(full.logits).argmax(1)
    other = replacements(x, gen)
    counts = draw_counts(len(x), config.ks, x.shape[-1] ** 2, gen, stratified=config.stratified)
    kept, deleted = [], []
    for k in counts.T:
        mask = topk_mask(
            logits, k, gen, detach_threshold=config.detach_threshold, grid=config.grid
        ).to(x.dtype)
        kept.append(mask * x + (1 - mask) * other)
        if config.deletion_weight:
            deleted.append((1 - mask) * x + mask * other)

    def judge(seen: list[Seen]) -> Values:
        scores = torch.stack([class_score(_logits(s.logits), target) for s in seen], 1)
        first, rest = scores[:, : config.ks], scores[:, config.ks :]
        loss = ra_nem_loss(first, rest if deleted else None, config.deletion_weight)
        values = {"loss": loss, "kept": first.mean(1)}
        return values | ({"rest": rest.mean(1)} if deleted else {})

    return Term(kept + deleted, judge)


def held_term(drawn: Tensor, before: Tensor) -> Term:
    """A head that is to draw what it drew before (learning without forgetting, Li & Hoiem 2016).

    The mean absolute difference weighs like the area terms of the other losses.
    """

    def judge(seen: list[Seen]) -> Values:
        return {"loss": (drawn - before).abs().flatten(1).mean(1)}

    return Term([], judge)


def aim_terms(
    x: Tensor,
    maps: dict[Aim, Tensor],
    full: Features,
    config: TrainConfig,
    gen: torch.Generator,
    unit: float,
    asked: tuple[Tensor, Tensor] | None,
    held: Mapping[Aim, Tensor],
) -> dict[Aim, Term]:
    """The term of each map.

    `asked` are the target head's classes and which of them are absent, `held` what heads that are
    not to change drew before.
    """
    terms: dict[Aim, Term] = {}
    for aim, drawn in maps.items():
        if aim in held:
            terms[aim] = held_term(drawn, held[aim])
        elif aim == "embedding":
            terms[aim] = embedding_term(x, drawn, full, config, gen)
        elif aim == "class":
            terms[aim] = class_term(x, drawn, full, config, gen, unit)
        elif aim == "ranking":
            terms[aim] = ranking_term(x, drawn, full, config, gen)
        else:
            assert asked is not None
            terms[aim] = target_term(x, drawn, full, config, gen, unit, *asked)
    return terms


def _logits(logits: Tensor | None) -> Tensor:
    assert logits is not None  # the decoder refuses class heads without classes
    return logits
