"""Import of a state dict of x-transformers, by the names of its tensors. The library is not needed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.exchange.imported_model import ImportedModel, build_module, make_data, restore_facts
from lightning_xt.exchange.x_transformers.network_rules import PREFIXES, TOKENS, list_rules
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.exchange.x_transformers.weights_file import read_weights

BYTES = 256
"""Vocabulary that is read as the values of bytes."""


def read_state_dict(
    file: Path, kind: str, options: Mapping[str, Any], stacks: Mapping[str, StackOptions], pad: int | None
) -> ImportedModel:
    """Read the weights of a model whose call has been translated.

    Args:
        file: a safetensors file, or one of torch.save.
        kind: class of the model.
        options: its options here.
        stacks: options of its networks there, by `decoder` and `encoder`.
        pad: the pad id of an encoder-decoder.

    Raises:
        UserError: the file cannot be read, or its tensors do not fit.
    """
    paired = kind == "Seq2Seq"
    weights = read_weights(file, (PREFIXES["encoder"] if paired else "") + TOKENS)
    wrappers = {side: each.wrapper for side, each in stacks.items()}
    sizes = {"target": wrappers["decoder"]["num_tokens"]}
    sizes["source"] = wrappers["encoder"]["num_tokens"] if paired else sizes["target"]
    ids = _choose_ids(pad) if paired else dict.fromkeys(("pad", "start", "end"))
    vocab: dict[str, int | None] = {**sizes, **ids, "separator": None}
    module = build_module(
        str(file), kind, {**options, "vocab": vocab}, weights, lambda network: list_rules(network, stacks)
    )
    longest = min(each["max_seq_len"] for each in wrappers.values()) or None
    made = {use: _make_tokenizer(sizes.get(use, sizes["target"]), ids) for use in module.tokenizers}
    restore_facts(module, made, longest)
    data, files = make_data(module.tokenizers, longest)
    remarks = _list_remarks(sizes, ids, next(iter(made.values())))
    return ImportedModel("x-transformers model", module, data, files, remarks)


def _choose_ids(pad: int | None) -> dict[str, int | None]:
    """Return special ids of an encoder-decoder, of which x-transformers knows only the padding."""
    return {"pad": pad, "start": 0 if pad else 1, "end": None}


def _make_tokenizer(size: int, ids: Mapping[str, int | None]) -> Bytes | Numbers:
    special = any(each is not None for each in ids.values())
    return Bytes() if size == BYTES and not special else Numbers(size, **ids)


def _list_remarks(sizes: Mapping[str, int], ids: Mapping[str, int | None], tokenizer: Bytes | Numbers) -> list[str]:
    size = sizes["target"]
    if isinstance(tokenizer, Bytes):
        return [f"{size} tokens are read as the values of bytes"]
    remarks = [f"texts are ids as numbers, such as 5 3 17; the weights have {size} of them"]
    if ids["start"] is not None:
        remarks.append(f"a target begins with the id {ids['start']}, the padding is {ids['pad']}, and no id ends it")
    return remarks
