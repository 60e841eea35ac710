"""Checks of models before their steps are traced, and messages about parts that cannot be traced."""

from collections.abc import Iterator
from types import TracebackType
from typing import cast

import torch
from torch import nn

from lightning_xt.core.inputs import ReadsInput
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder

ANY = "use --format hf-code, which takes any"


def check_step(model: ExportedModel) -> Decoder | EncoderDecoder:
    """Return the network of a model whose decode step can be exported.

    Raises:
        MisfitError: the model has no decode step, or one that needs more than tokens and a cache.
    """
    network = check_network(model.network, model.name, model.kind)
    if getattr(model.module.objective, "visible_prompts", False):
        raise MisfitError(
            f"{model.name} is a prefix language model (model.objective), whose prompts see themselves whole, but an "
            f"exported step sees only earlier tokens; {ANY}"
        )
    if model.options.dtype != torch.float32:
        dtype = str(model.options.dtype).removeprefix("torch.")
        raise MisfitError(f"--dtype is {dtype}, but exported steps compute in float32; omit it")
    return network


def check_network(network: nn.Module, name: str, kind: str) -> Decoder | EncoderDecoder:
    """Return a network whose decode step is a function of tokens and a cache; MisfitError for any other.

    Args:
        network: the network.
        name: name of the model, for messages.
        kind: class of the model, for messages.
    """
    if not isinstance(network, Decoder | EncoderDecoder):
        raise MisfitError(f"{name} is a {kind}, which has no decode step; train a LanguageModel or a Seq2Seq")
    decoder = network if isinstance(network, Decoder) else network.decoder
    if decoder.segments is not None:
        raise MisfitError(
            f"model.decoder.segments of {name} is {type(decoder.segments).__name__}, whose memories are made between "
            f"steps; train with --model.decoder.segments null, or {ANY}"
        )
    for part in _list_readers(network):
        raise MisfitError(
            f"{type(part).__name__} in {name} reads Inputs({part.needed_input}=...), which an exported step does not "
            f"have; train with another part, or {ANY}"
        )
    return network


def _list_readers(network: nn.Module) -> Iterator[ReadsInput]:
    """List the parts that need inputs besides the tokens; an encoder gives its decoder's context."""
    given = (None, "context") if isinstance(network, EncoderDecoder) else (None,)
    for each in network.modules():
        if isinstance(each, ReadsInput) and each.needed_input not in given:
            yield each


def explain_failure(model: ExportedModel, action: str, error: Exception) -> MisfitError:
    """Return a MisfitError that names the part of the network in which an action has failed.

    Args:
        model: the model.
        action: the action, such as "traced by torch.export".
        error: error of the action.
    """
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
    part = _find_part(model.network, error.__traceback__)
    where = "" if part is None else f"; the part in the way is {part}"
    return MisfitError(f"{model.name} cannot be {action} ({reason}){where}; train with another part, or {ANY}")


def _find_part(network: nn.Module, traceback: TracebackType | None) -> str | None:
    """Return the class and the path of the innermost part on the way to an error."""
    names, found = {id(module): name for name, module in network.named_modules()}, None
    while traceback is not None:
        part = traceback.tb_frame.f_locals.get("self")
        if id(part) in names and not type(part).__module__.startswith("torch."):
            found = f"{type(cast(object, part)).__name__} ({names[id(part)]})"
        traceback = traceback.tb_next
    return found
