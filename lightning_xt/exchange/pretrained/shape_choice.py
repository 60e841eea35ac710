"""Choice of the shape of `transformers` that a model fits."""

import importlib
import pkgutil
from typing import Any, cast

from lightning_xt.exchange import pretrained
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.templates import Match
from lightning_xt.system.discovery import find_variants


def list_shapes() -> list[PretrainedShape]:
    """List the shapes, by name."""
    for module in pkgutil.iter_modules(pretrained.__path__, f"{pretrained.__name__}."):
        importlib.import_module(module.name)
    found = (cast(PretrainedShape, kind()) for kind in find_variants(PretrainedShape))
    return sorted(found, key=lambda shape: shape.label)


def fit_shape(model: ExportedModel) -> tuple[PretrainedShape, dict[str, Any]]:
    """Return the shape that a model fits, and its settings, `vocab_size` included.

    Raises:
        MisfitError: the model fits none; the message names the options that stand in the way of the closest.
    """
    shapes = [shape for shape in list_shapes() if shape.kind == model.kind]
    tried: list[tuple[PretrainedShape, Match]] = [(shape, shape.match(model.config)) for shape in shapes]
    if not tried:
        raise MisfitError(f"{model.name} is a {model.kind}, of which transformers has no model; use --format hf-code")
    for shape, match in tried:
        if not match.mismatches:
            _check_objective(model, shape)
            _check_scores(model, shape)
            return shape, {**match.settings, "vocab_size": model.vocab_size}
    shape, match = min(tried, key=lambda each: len(each[1].mismatches))
    names = ", ".join(shape.label for shape in shapes)
    given = "," if shape.overlay is None else f", such as by -c {shape.overlay},"
    raise MisfitError(
        f"{model.name} does not have the shape of a model of transformers ({names}). Closest is {shape.label}, but "
        f"{match.describe()}; train a model with these options{given} or use --format hf-code, which takes any"
    )


def _check_objective(model: ExportedModel, shape: PretrainedShape) -> None:
    if model.module.objective.visible_prompts:
        raise MisfitError(
            f"{model.name} is a prefix language model (model.objective), whose prompts see themselves whole, but those "
            f"of {shape.label} do not; use --format hf-code"
        )


def _check_scores(model: ExportedModel, shape: PretrainedShape) -> None:
    update = model.module.maximal_update
    if update is not None and update.changes_scores:
        raise MisfitError(
            f"{model.name} divides the scores of attention by the width of its heads (model.mup_base_dim), but "
            f"{shape.label} does by its root; use --format hf-code"
        )
