"""Whether the weights of a checkpoint are those of this command's model, and what differs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_xt.checkpoints.checkpoint import read_checkpoint
from lightning_xt.checkpoints.migrations import OWN
from lightning_xt.commands.checkpoints import step_of
from lightning_xt.system.messages import UserError
from lightning_xt.training.seq2seq import Seq2Seq

OF_NETWORK = ("encoder", "decoder", "shared_embedding", "context_dropout")
"""Options of a module that make its network."""


def load_weights(model: LightningModule, checkpoint: Path) -> None:
    """Gives a model the weights of a checkpoint, and nothing else of it.

    Raises:
        UserError: they do not fit.
        ValueError: the file cannot be read, or a later version wrote it.
    """
    step_of(checkpoint)
    content = read_checkpoint(checkpoint)
    if sentence := misfit(checkpoint, model):
        raise UserError(sentence)
    model.load_state_dict(content["state_dict"])
    if isinstance(model, Seq2Seq):
        # Weights of ids that meant something else would be worth nothing.
        model.take_tokenizers(content.get(OWN, {}))


def misfit(checkpoint: Path, model: LightningModule) -> str:
    """Why the weights do not fit the model, in a sentence; empty if they do."""
    content = read_checkpoint(checkpoint)
    there = {name: tuple(value.shape) for name, value in content.get("state_dict", {}).items()}
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    reshaped = sorted(name for name in there.keys() & here.keys() if there[name] != here[name])
    faults = [
        _listed("missing there", sorted(here.keys() - there.keys())),
        _listed("unknown here", sorted(there.keys() - here.keys())),
        _listed("of another shape", [f"{name} {there[name]} there, {here[name]} here" for name in reshaped]),
    ]
    found = "; ".join(fault for fault in faults if fault)
    if not found:
        return ""
    kind, own = content.get(OWN, {}).get("kind", "model"), type(model).__name__
    return (
        f"{checkpoint} holds a {kind} whose weights do not fit this command's {own}: {found}; give the options that it "
        "was trained with, as its run's config.yaml has them"
    )


def differences(checkpoint: Path, model: dict[str, Any]) -> list[str]:
    """A line for each option of the network in which this command differs from the checkpoint; the command's holds.

    Args:
        checkpoint: the file.
        model: the command's `model` section.

    Raises:
        ValueError: the file cannot be read.
    """
    saved = read_checkpoint(checkpoint).get("hyper_parameters", {})
    options = model.get("init_args", {})
    there = {name: value for part in OF_NETWORK for name, value in _leaves(saved.get(part), f"model.{part}")}
    here = {name: value for part in OF_NETWORK for name, value in _leaves(options.get(part), f"model.{part}")}
    return [
        f"--{name} is {here.get(name)} here, {there.get(name)} in the checkpoint"
        for name in sorted(there.keys() | here.keys())
        if saved and there.get(name) != here.get(name)
    ]


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}, such as {names[0]}" if names else ""


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The options of a config, each under the name it has on the command line."""
    if not isinstance(value, dict):
        yield name, value
        return
    if "class_path" in value:
        yield name, value["class_path"].rpartition(".")[2]
        value = value.get("init_args", {})
    for key, each in value.items():
        yield from _leaves(each, f"{name}.{key}")
