"""Config of a translated model: complete, checked, and as text."""

import inspect
import sys
from typing import Any

import torch
import yaml

from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.commands.x_transformers.architectures import Architecture, translate
from lightning_xt.commands.x_transformers.expression import parse
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.docstrings import describe_options
from lightning_xt.system.messages import UserError, make_visible
from lightning_xt.system.public_names import find_public

NETWORKS = {"decoder": Decoder, "encoder": Encoder}
RECIPES = {
    "LanguageModel": "configs/language/quickstart.yaml",
    "MaskedLanguageModel": "configs/language/masked.yaml",
    "Seq2Seq": "configs/translation/copy.yaml",
}
"""Shipped config of a whole run with each kind of model."""
COMPLETE = ("attention", "cross_attention", "feedforward", "recipes")
"""Slots whose classes are written with all of their options."""
OMITTED = ("vocab_size", "context", "backend", "checkpoint_layers")
"""Options that others give, or that change no result; a config before may set them."""
WIDTH, VOCAB = 118, 11
DEPTH_CHECKED = 8
"""Most layers of a model that is built to check its options."""


def print_config(text: str) -> int:
    """Print the config of an architecture of x-transformers; return the exit code."""
    architecture = translate(parse(text))
    config = write_config(architecture, text)
    check(architecture)
    print(config, end="")
    remarks = architecture.remarks
    for head, lines in (("no counterpart here", remarks.missing), ("differs", remarks.differing)):
        for line in lines:
            print(f"lightning-xt: from-xt: {head}: {make_visible(line)}", file=sys.stderr)
    return 0


def write_config(architecture: Architecture, text: str) -> str:
    """Return a config that means the same by itself and after any other one."""
    kind, options, remarks, facts = architecture[:4]
    lines = [f"from: {' '.join(text.split())}"]
    lines += [f"no counterpart here: {line}" for line in remarks.missing]
    lines += [f"differs: {line}" for line in remarks.differing]
    lines += [*facts, f"train: lightning-xt fit -c {RECIPES[kind]} -c FILE"]
    body = {"model": {"class_path": kind, "init_args": complete_model(options)}}
    dumped = yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=WIDTH, default_flow_style=None)
    return "".join(f"# {make_visible(line)}\n" for line in lines) + dumped


def complete_model(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a model, those of its networks complete: other configs before it change nothing."""
    return {name: complete(NETWORKS[name], value) if name in NETWORKS else value for name, value in options.items()}


def complete(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a class, in the order of its signature, at their defaults where they are not given."""
    known, found = describe_options(kind), {}
    for name, parameter in init_parameters(kind).items():
        if name in options:
            found[name] = _complete_value(name, options[name])
        elif name in known and name not in OMITTED:
            found[name] = _spell(parameter.default)
    return found


def _complete_value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_complete_value(name, each) for each in value]
    if name not in COMPLETE or value is None:
        return value
    spec = value if isinstance(value, dict) else {"class_path": value, "init_args": {}}
    return {**spec, "init_args": complete(find_public(spec["class_path"]), spec["init_args"])}


def _spell(default: Any) -> Any:
    """Return a default as a config spells it."""
    if inspect.isclass(default):
        return default.__name__
    return list(default) if isinstance(default, tuple) else default


def check(architecture: Architecture) -> None:
    """Build the network without memory; UserError if it is refused here."""
    options = {name: value for name, value in architecture.options.items() if name != "objective"}
    for name in NETWORKS.keys() & options.keys():
        options[name] = _limit_depth(options[name])
    try:
        with torch.device("meta"):
            if architecture.kind == "LanguageModel":
                make_recipe(Decoder, options["decoder"])(VOCAB)
            elif architecture.kind == "MaskedLanguageModel":
                make_recipe(EncoderWithHead, options)(VOCAB)
            else:
                make_recipe(EncoderDecoder, options)(VOCAB, VOCAB)
    except (ValueError, RuntimeError, OverflowError) as error:
        # Sizes whose product torch cannot count are runtime errors.
        raise UserError(f"from-xt: the model is refused here: {error}") from error


def _limit_depth(network: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a network of fewer layers; thousands would take minutes."""
    parts = [network[slot] for slot in ("attention", "cross_attention", "feedforward") if network.get(slot)]
    parts += [network["shift"]] if network["shift"] else []
    listed = [each["init_args"].get("recipes") or each["init_args"].get("shifts") or () for each in parts]
    depth = max(DEPTH_CHECKED, *map(len, listed))
    if network["depth"] <= depth:
        return network
    # The order of more sublayers is right by construction.
    return {**network, "depth": depth, "layout": "Standard"}


class _Dumper(yaml.SafeDumper):
    """Dumper that repeats what occurs twice, in place of a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
