"""gguf: models in llama.cpp's format, read by gguf and by transformers."""

import itertools
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.gguf import FILE, Gguf, interleave
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.training.language_model import LanguageModel

ATTENTION: dict[str, Any] = {"heads": 4, "kv_heads": 2}
LLAMA: dict[str, Any] = {"dim": 32, "depth": 2, "attention": ATTENTION, "feedforward": "SwiGLU"}


def build(decoder: dict[str, Any], tokenizer: Any = None, dtype: torch.dtype = torch.float32) -> ExportedModel:
    size = 256 if tokenizer is None else tokenizer.vocab_size
    module = LanguageModel.from_config({"vocab": {"source": size, "target": size}, "decoder": decoder}).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.2 * torch.randn_like(each))
    if tokenizer is not None:
        module._trained_with = {"text": tokenizer}
    return ExportedModel("runs/small", module, ExportOptions(dtype))


def write(model: ExportedModel, folder: Path) -> dict[str, Any]:
    """Write the file, compare it with the model, and return its fields."""
    Gguf().check(model)
    Gguf().write(model, folder)
    found = Gguf().verify(model, folder)
    assert found.difference is not None and found.tolerance is not None
    assert found.difference <= found.tolerance and found.tokens == 24
    (tokenizer,) = Gguf().verify_tokenizers(model, folder)
    assert tokenizer.startswith("tokenizer: gguf ") and tokenizer.endswith(" gives the same ids")
    return {name: each.contents() for name, each in gguf.GGUFReader(folder / FILE).fields.items()}


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16], ids=str
)
def test_gguf_llama_export(dtype: torch.dtype, tmp_path: Path) -> None:
    fields = write(build({**LLAMA, "head": "TiedHead"}, dtype=dtype), tmp_path)
    assert fields["general.architecture"] == "llama"
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["tokenizer.ggml.tokens"][ord("a")] == "a" and len(fields["tokenizer.ggml.tokens"]) == 256
    assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.add_bos_token"]) == (255, False)


def test_gguf_qwen3_export(tmp_path: Path) -> None:
    decoder = {**LLAMA, "attention": {**ATTENTION, "qk_norm": "RMSNorm"}}
    assert write(build(decoder), tmp_path)["qwen3.attention.key_length"] == 8


def test_a_learned_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = BPE(400, specials="documents")
    text = "the quick brown fox jumps over the lazy dog; don't  stop, 12 or 345 times\n"
    tokenizer.train(lambda: [text * 9])
    fields = write(build(LLAMA, tokenizer), tmp_path)
    library = Library.from_str(str(tokenizer.trained_state))
    tokens = fields["tokenizer.ggml.tokens"]
    size = library.get_vocab_size()
    assert tokens[:size] == [library.id_to_token(token) for token in range(size)]
    kinds = fields["tokenizer.ggml.token_type"]
    assert kinds[:4] == [3, 3, 3, 1] and set(kinds[size:]) <= {5}
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (2, 2)
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    ranks = {tuple(each.split(" ")): rank for rank, each in enumerate(fields["tokenizer.ggml.merges"])}
    # Merging by rank, as readers of the format do.
    word = list("Ġquick")
    while len(word) > 1:
        rank, at = min((ranks.get(pair, 10**9), at) for at, pair in enumerate(itertools.pairwise(word)))
        if rank == 10**9:
            break
        word[at : at + 2] = ["".join(word[at : at + 2])]
    assert [tokens.index(each) for each in word] == tokenizer.encode(" quick")


def test_pairs_of_halves_become_neighbours() -> None:
    rows = torch.arange(8.0)[:, None]
    assert np.array_equal(interleave(rows, 2)[:, 0], [0, 2, 1, 3, 4, 6, 5, 7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "position": {
                    "class_path": "Rotary",
                    "init_args": {"rope_scaling": {"class_path": "LinearScaling", "init_args": {"factor": 2.0}}},
                }
            },
            "scales its rotary positions .*; use --format hf",
        ),
        (
            {
                "projection": {"class_path": "MultiHead", "init_args": {"bias": True}},
                "output_projection": "BiasedOutput",
            },
            "has biases",
        ),
        ({"position": "ALiBi"}, "Closest is "),
    ],
)
def test_models_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MisfitError, match=message):
        Gguf().check(build({**LLAMA, "attention": {**ATTENTION, **change}}))


def test_a_tokenizer_that_does_not_fit_is_named() -> None:
    from lightning_xt.data.tokenizers.numbers import Numbers

    with pytest.raises(MisfitError, match="has the tokenizer Numbers, but gguf is written for bytes and byte-level"):
        Gguf().check(build(LLAMA, Numbers(31)))
