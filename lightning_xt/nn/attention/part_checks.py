"""Checks that the parts of an attention fit together."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.projections.base import Projection
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.scores.base import Score
from lightning_xt.nn.value_mods.base import ValueMod


def check_cross_attention(
    shape: AttentionShape, mods: Mapping[str, Sequence[ValueMod | ScoreMod]], output_mods: Sequence[OutputMod]
) -> None:
    """Refuse parts of cross-attention that need something of which only self-attention has some."""
    if shape.context_dim is None:
        return
    reading = [type(mod).__name__ for mod in output_mods if mod.reads_values]
    if reading:
        raise ValueError(
            f"output_mods: {reading[0]} reads the values of the token itself, which cross-attention does not have; "
            "use it in self-attention only"
        )
    for slot, parts in mods.items():
        for part in parts:
            if part.self_attention_only:
                raise ValueError(
                    f"{slot}: {type(part).__name__} serves self-attention only, but this is cross-attention; omit it "
                    "there"
                )


def check_projection(
    projection: Projection,
    norms: Mapping[str, Norm | None],
    memory: bool,
    score: Score,
    position: Position | None,
    value_mods: Sequence[ValueMod],
    score_mods: Sequence[ScoreMod],
    output_mods: Sequence[OutputMod],
) -> None:
    """Refuse parts, by name, that need keys and values per head with a projection that has none."""
    if projection.per_head:
        return
    found = [f"{slot} {type(norm).__name__}" for slot, norm in norms.items() if norm is not None]
    found += ["memory"] if memory else []
    found += [] if score.bilinear else [f"score {type(score).__name__}"]
    if position is not None and (position.paired or not position.rotates_alike):
        found.append(f"position {type(position).__name__}")
    found += [f"value_mods {type(mod).__name__}" for mod in value_mods]
    found += [f"score_mods {type(mod).__name__}" for mod in score_mods if mod.reads_keys]
    found += [f"output_mods {type(mod).__name__}" for mod in output_mods if mod.reads_values]
    if found:
        raise ValueError(
            f"attention: projection {type(projection).__name__} has no keys and values per head, "
            f"so it cannot be combined with {' and '.join(found)}; omit one of them"
        )


def check_scores(score: Score, normalizer: Normalizer) -> None:
    """Refuse a normalizer that would weigh no key at all."""
    if score.negative and normalizer.drops_negative:
        raise ValueError(
            f"normalizer: {type(normalizer).__name__} weighs only keys of a score above 0, but score "
            f"{type(score).__name__} has none; omit one of them"
        )


def check_signs(
    value_mods: Sequence[ValueMod],
    projection: Projection,
    normalizer: Normalizer,
    memory: bool,
    position: Position | None,
    score_mods: Sequence[ScoreMod],
) -> None:
    """Refuse negative values or weights next to a value mod that needs positive ones, and signs of lowered scores."""
    lowering = [] if position is None or not position.lowers_scores else [f"position: {type(position).__name__}"]
    lowering += [f"score_mods: {type(mod).__name__}" for mod in score_mods if mod.lowers_scores]
    if normalizer.signed and lowering:
        raise ValueError(
            f"{lowering[0]} hides a key by a low score, but normalizer {type(normalizer).__name__} weighs by the size "
            "of a score, so that low ones weigh most; omit one of them"
        )
    others = {
        "memory": memory,
        f"normalizer {type(normalizer).__name__}": normalizer.signed,
        f"projection {type(projection).__name__}": projection.signed,
        **{f"score_mods {type(mod).__name__}": mod.signed for mod in score_mods},
    }
    other = next((name for name, negative in others.items() if negative), None)
    for mod in value_mods:
        if mod.needs_positive and other is not None:
            raise ValueError(
                f"value_mods: {type(mod).__name__} gathers numbers above 0 only, but those of {other} may be negative; "
                "omit one of them"
            )


def check_removals(output_mods: Sequence[OutputMod]) -> None:
    """Refuse two parts that remove the same from the gathered values."""
    removing = [type(mod).__name__ for mod in output_mods if mod.removes_own]
    if len(removing) > 1:
        raise ValueError(
            f"output_mods: {removing[0]} and {removing[1]} both remove what was gathered along the token's own value, "
            "so that one has nothing left to remove; omit one of them"
        )


def check_own_values(projection: Projection, value_mods: Sequence[ValueMod], output_mods: Sequence[OutputMod]) -> None:
    """Refuse parts about a layer's own values where it reads those of another, or gathers them on another scale."""
    parts = [("value_mods", mod) for mod in value_mods]
    reading = [("output_mods", mod) for mod in output_mods if mod.reads_values]
    restoring = [type(mod).__name__ for mod in value_mods if type(mod).restore is not ValueMod.restore]
    if restoring and reading:
        raise ValueError(
            f"output_mods: {type(reading[0][1]).__name__} compares gathered values with the token's own, but "
            f"value_mods: {restoring[0]} changes the scale of the gathered ones; omit one of them"
        )
    if not projection.reads_shared_keys:
        return
    for slot, part in [*parts, *reading]:
        raise ValueError(
            f"{slot}: {type(part).__name__} works on the values of each layer, but with projection "
            f"{type(projection).__name__} the upper layers have none; omit one of them"
        )


def check_bias(bias: Tensor | None, rows: int, heads: int) -> None:
    """Refuse a caller's bias that is for other rows or heads."""
    if bias is not None and (bias.shape[0] not in (1, rows) or bias.shape[1] not in (1, heads)):
        raise ValueError(
            f"Inputs(bias=...) is for {bias.shape[0]} row(s) and {bias.shape[1]} head(s); it must be for 1 "
            f"or {rows} rows and for 1 or {heads} heads"
        )


def find_looking_back(
    position: Position | None, normalizer: Normalizer, score_mods: Sequence[ScoreMod]
) -> tuple[str, str] | None:
    """Find slot and class of a part that looks back only, so that no query may see a later key."""
    if position is not None and position.looks_back:
        return "position", type(position).__name__
    if normalizer.looks_back:
        return "normalizer", type(normalizer).__name__
    return next((("score_mods", type(mod).__name__) for mod in score_mods if mod.looks_back), None)


def refuse_visible_prefix(slot: str, name: str) -> NoReturn:
    """Raise a ValueError for a prefix whose tokens see later ones, by a part that looks back only."""
    raise ValueError(
        f"{slot}: {name} looks back only, but with Inputs(visible_prefix=...), which objective: PrefixNextToken sets, "
        f"the first tokens see later ones; choose another {slot.removesuffix('s')}, or omit visible_prefix"
    )
