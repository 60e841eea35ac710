"""Rows of the comparison: options of x-transformers, and ours that compute the same."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import yaml

Options = Mapping[str, Any]
VOCAB, SOURCE_VOCAB, LENGTH = 17, 19, 12
LAYERS = "dim=16, depth=2, heads=4, attn_dim_head=8, verbose=False"
WRAPPER = f"num_tokens={VOCAB}, max_seq_len={LENGTH}, use_abs_pos_emb=False"
SIDE = f"depth=2, heads=4, attn_dim_head=8, verbose=False, max_seq_len={LENGTH}, use_abs_pos_emb=False"
NETWORK = {
    "dim": 16,
    "depth": 2,
    "norm": {"class_path": "LayerNorm", "init_args": {"eps": 1e-5}},
    "feedforward": {"class_path": "MLP", "init_args": {"bias": True}},
}
ATTENTION = {"heads": 4, "dim_head": 8, "position": None}


@dataclass(frozen=True)
class Row:
    """Options of both sides.

    Args:
        name: title of the row.
        theirs: constructor of x-transformers.
        ours: options of a LanguageModel or a Seq2Seq.
        given: name of an input besides the tokens. None = there is none.
        caches: True if their cache gives the numbers of their forward.
        zeros: ends of the names of their weights that have no counterpart, and are zero.
    """

    name: str
    theirs: str
    ours: Options
    given: str | None = None
    caches: bool = True
    zeros: Sequence[str] = ()


def list_decoders() -> list[Row]:
    """List the rows of decoders.yaml."""
    return [make_decoder(name, **each) for name, each in _read("decoders.yaml").items()]


def list_combinations(number: int, seed: int) -> list[Row]:
    """List pairs of rows of decoders whose options of x-transformers can be given together, without our options."""
    found = _read("decoders.yaml")
    pairs = [pair for pair in combinations(found, 2) if _are_disjoint(*(found[name] for name in pair))]
    return [_combine(first, second, found) for first, second in Random(seed).sample(pairs, number)]


def _are_disjoint(first: Options, second: Options) -> bool:
    given = (first.get("given"), second.get("given"))
    texts = [[f"{each.get('layers', '')}", f"{each.get('wrapper', '')}"] for each in (first, second)]
    names = [{name for text in each for name in split_options(text)} for each in texts]
    return given == (None, None) and not names[0] & names[1]


def _combine(first: str, second: str, found: Mapping[str, Options]) -> Row:
    both = [found[first], found[second]]
    texts = {key: join_options(*(each.get(key, "") for each in both)) for key in ("layers", "wrapper")}
    zeros = [name for each in both for name in each.get("zeros", ())]
    return make_decoder(f"{first} + {second}", **texts, zeros=zeros)


def list_pairs() -> list[Row]:
    """List the rows of pairs.yaml."""
    return [_make_pair(name, **each) for name, each in _read("pairs.yaml").items()]


def make_decoder(
    name: str,
    layers: str = "",
    wrapper: str = "",
    decoder: Options | None = None,
    attention: Options | None = None,
    **others: Any,
) -> Row:
    """Make a row of a decoder from options besides those of all rows."""
    ours = {**NETWORK, **(decoder or {}), "attention": {**ATTENTION, **(attention or {})}}
    inner = f"Decoder({join_options(LAYERS, layers)})"
    theirs = f"TransformerWrapper({join_options(WRAPPER, wrapper)}, attn_layers={inner})"
    return Row(name, theirs, {"vocab": {"target": VOCAB}, "decoder": ours}, **others)


def _read(file: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name(file).read_text("utf-8"))
    return found


def _make_pair(
    name: str,
    top: str = "",
    both: str = "",
    enc: str = "",
    dec: str = "",
    model: Options | None = None,
    **ours: Options,
) -> Row:
    tied = "tie_token_emb" in top
    enc = join_options(SIDE, f"num_tokens={VOCAB if tied else SOURCE_VOCAB}", both, enc, prefix="enc_")
    dec = join_options(SIDE, f"num_tokens={VOCAB}", both, dec, prefix="dec_")
    sizes = {"source": VOCAB if tied else SOURCE_VOCAB, "target": VOCAB, "pad": 0, "start": 1, "end": 2}
    sides = {
        side: {
            **NETWORK,
            **ours.get("sides", {}),
            **ours.get(side, {}),
            "attention": {**ATTENTION, **ours.get("attention", {}), **ours.get(side, {}).get("attention", {})},
        }
        for side in ("encoder", "decoder")
    }
    across = {**ATTENTION, **ours.get("cross_attention", {})}
    sides["decoder"]["cross_attention"] = {"class_path": "Attention", "init_args": across}
    theirs = f"XTransformer({join_options('dim=16, ignore_index=0', top)}, {enc}, {dec})"
    return Row(name, theirs, {"vocab": sizes, **sides, **(model or {})})


def join_options(*texts: str, prefix: str = "") -> str:
    """Join options of a constructor; later ones replace earlier ones."""
    joined = {name: value for text in texts for name, value in split_options(text).items()}
    return ", ".join(f"{prefix}{name}={value}" for name, value in joined.items())


def split_options(text: str) -> dict[str, str]:
    """Split the options of a constructor."""
    call = ast.parse(f"f({text})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(each.arg): ast.unparse(each.value) for each in call.keywords}
