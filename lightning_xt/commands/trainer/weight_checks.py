"""Checks of a checkpoint's weights against this command's model."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.commands.models.loading import find_module_class
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.nn.adapters.layer_replacement import merge_in_place
from lightning_xt.system.messages import UserError
from lightning_xt.training.from_config import instantiate
from lightning_xt.training.module import TransformerModule

OF_NETWORK = ("encoder", "decoder", "head", "shared_embedding", "context_dropout")
"""Options of a module that make its network."""


OF_OBJECTIVE = "objective."
"""Prefix of the names of an objective's parameters."""


def load_weights(model: LightningModule, checkpoint: Checkpoint) -> None:
    """Load the weights of a checkpoint into a model, and nothing else of it; UserError if they do not fit.

    Parameters of an objective or an adapter that the checkpoint does not have start afresh.
    """
    there = _read_weights(checkpoint, model.hparams.get("adapter"))
    adapted = {*list_adapter_parameters(model)}
    here = {name: value for name, value in model.state_dict().items() if name.startswith(OF_OBJECTIVE)}
    own = {name: there[name] if _same_shape(there.get(name), value) else value for name, value in here.items()}
    there = {name: value for name, value in there.items() if not name.startswith(OF_OBJECTIVE)}
    own |= {name: value for name, value in model.state_dict().items() if name in adapted - there.keys()}
    if sentence := explain_misfit(checkpoint, model, there | own):
        raise UserError(sentence)
    model.load_state_dict(there | own)
    if isinstance(model, TransformerModule):
        # Weights are worthless for ids that meant something else.
        model.restore_tokenizers(checkpoint.tokenizers)
    checkpoint.release()


def refuse_adapter(model: LightningModule) -> None:
    """Raise a UserError if a run without weights to start from has an adapter."""
    if list_adapter_parameters(model):
        raise UserError(
            "--model.adapter trains next to frozen weights, which are random in a new run; give the run to fine-tune, "
            "--init_from RUN, or omit the adapter"
        )


def _read_weights(checkpoint: Checkpoint, adapter: Any) -> dict[str, Tensor]:
    """Return the weights of a checkpoint; an adapter of another recipe than this one is merged into them."""
    if checkpoint.config.get("adapter") in (None, adapter) or checkpoint.module_class is None:
        return checkpoint.weights
    model = instantiate(find_module_class(checkpoint.module_class), checkpoint.config)
    model.load_state_dict(checkpoint.weights)
    merge_in_place(model)
    return dict(model.state_dict())


def explain_misfit(checkpoint: Checkpoint, model: LightningModule, weights: Mapping[str, Tensor] | None = None) -> str:
    """Return why the weights, None = those of the checkpoint, do not fit the model, in a sentence; empty if they do."""
    there, here = (
        {name: tuple(value.shape) for name, value in each.items()}
        for each in (checkpoint.weights if weights is None else weights, model.state_dict())
    )
    reshaped = sorted(name for name in there.keys() & here.keys() if there[name] != here[name])
    faults = [
        _format_fault("missing there", sorted(here.keys() - there.keys())),
        _format_fault("unknown here", sorted(there.keys() - here.keys())),
        _format_fault("of another shape", [f"{name} {there[name]} there, {here[name]} here" for name in reshaped]),
    ]
    found = "; ".join(fault for fault in faults if fault)
    if not found:
        return ""
    kind, own = checkpoint.metadata.get("kind", "model"), type(model).__name__
    return (
        f"{checkpoint.path} holds a {kind} whose weights do not fit this command's {own}: {found}; give the options "
        "that it was trained with, as its run's config.yaml has them"
    )


def list_differences(checkpoint: Checkpoint, model: dict[str, Any]) -> list[str]:
    """Return a line for each option of the network whose value in this `model` section, which holds, is another."""
    saved = checkpoint.config
    options = model.get("init_args", {})
    there = {name: value for part in OF_NETWORK for name, value in list_leaves(saved.get(part), f"model.{part}")}
    here = {name: value for part in OF_NETWORK for name, value in list_leaves(options.get(part), f"model.{part}")}
    return [
        f"--{name} is {here.get(name)} here, {there.get(name)} in the checkpoint"
        for name in sorted(there.keys() | here.keys())
        if saved and there.get(name) != here.get(name)
    ]


def _same_shape(value: Tensor | None, other: Tensor) -> bool:
    return value is not None and value.shape == other.shape


def _format_fault(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}, such as {names[0]}" if names else ""


def list_leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the options of a config, each under the name it has on the command line."""
    if not isinstance(value, dict):
        yield name, value
        return
    if "class_path" in value:
        yield name, value["class_path"].rpartition(".")[2]
        value = value.get("init_args", {})
    for key, each in value.items():
        yield from list_leaves(each, f"{name}.{key}")
