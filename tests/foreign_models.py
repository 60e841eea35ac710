"""Models of transformers with random weights, and the ways between them and this package."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GenerationConfig

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load
from lightning_xt.exchange.importing import read_folder
from lightning_xt.training.module import TransformerModule

GREEDY = 100
"""Greedy tokens that must be the same in float64."""
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": None,
    "max_position_embeddings": 160,
}
"""Settings of a small decoder, as most configs spell them."""


def save_foreign(config: Any, kind: Any, folder: Path) -> nn.Module:
    """Save a model with random weights, biases and gains included, and return it in evaluation mode."""
    torch.manual_seed(0)
    model = randomize_weights(kind(config))
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


@torch.no_grad()
def randomize_weights(model: nn.Module) -> nn.Module:
    """Change all weights, biases and gains included, and return the model in evaluation mode."""
    for each in model.parameters():
        if each.requires_grad:
            each.add_(0.2 * torch.randn_like(each))
    return model.eval()


def import_run(folder: Path, runs: Path, name: str = "imported") -> TransformerModule:
    """Import a folder by the command, and return the model of the run."""
    assert main(["import", str(folder), "--name", name, "--output", str(runs)]) == 0
    return load(str(runs / name)).cpu()


def export_run(run: Path, folder: Path, *options: str, form: str = "hf") -> Path:
    """Export a run by the command, which checks the folder, and return it."""
    assert main(["export", str(run), "--format", form, "--output", str(folder), *options]) == 0
    return folder


@torch.no_grad()
def check_same(ours: nn.Module, theirs: nn.Module, vocab_size: int) -> None:
    """Check logits in float32, and greedy tokens in float64."""
    ids = torch.randint(0, vocab_size, (2, 13))
    torch.testing.assert_close(ours(ids), theirs(input_ids=ids).logits, atol=1e-4, rtol=0)
    start = ids[:1, :3]
    text = decode_greedily(theirs.double(), start)
    # In one pass here: each token is the best after those before it.
    assert torch.equal(ours.double()(text)[0, 2:-1].argmax(-1), text[0, 3:])


def decode_greedily(theirs: Any, ids: Tensor, start: Tensor | None = None) -> Tensor:
    """Return a text that a model of transformers continues by `GREEDY` tokens."""
    told = {} if start is None else {"pad_token_id": 0, "decoder_start_token_id": int(start)}
    theirs.generation_config = GenerationConfig(max_new_tokens=GREEDY, **told)
    # The cache of transformers counts the encoder's layers where it needs those of the decoder.
    text: Tensor = theirs.generate(ids, attention_mask=torch.ones_like(ids), use_cache=start is None)
    assert text.shape[1] == GREEDY + (ids if start is None else start).shape[1]
    return text


def check_same_bits(folder: Path, other: Path) -> None:
    """Check that two folders hold the same tensors, bit for bit, and the same settings."""
    mine, theirs = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def check_both_ways(config: Any, kind: Any, tmp_path: Path) -> None:
    """Import a model of transformers, export it again, and check both directions."""
    theirs = save_foreign(config, kind, tmp_path / "theirs")
    ours = import_run(tmp_path / "theirs", tmp_path / "runs")
    check_same(ours.network, theirs, config.vocab_size)
    exported = export_run(tmp_path / "runs" / "imported", tmp_path / "ours")
    check_same_bits(exported, tmp_path / "theirs")
    before, after = load(str(tmp_path / "runs" / "imported")).state_dict(), read_folder(exported).module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].cpu(), after[name]) for name in before)


def randomize(module: TransformerModule) -> dict[str, Tensor]:
    """Give a model random weights, gains included, and return them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.2 * torch.randn_like(each))
    return {name: each.clone() for name, each in module.state_dict().items()}


def read_config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


PAIR = {"vocab_size": 61, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
"""Settings of a small encoder-decoder, which starts with its padding, as T5 and Marian do."""


@torch.no_grad()
def check_same_pairs(ours: nn.Module, theirs: nn.Module, vocab_size: int) -> None:
    """Check logits in float32, with a padded source, and greedy tokens in float64."""
    src, tgt = torch.randint(3, vocab_size, (2, 13)), torch.randint(3, vocab_size, (2, 7))
    mask = torch.arange(13) < torch.tensor([[13], [9]])
    found = theirs(input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt).logits
    torch.testing.assert_close(ours(src, tgt, mask), found, atol=1e-4, rtol=0)
    text = decode_greedily(theirs.double(), src[:1], torch.tensor([[PAIR["decoder_start_token_id"]]]))
    # In one pass here: each token is the best after those before it.
    assert torch.equal(ours.double()(src[:1], text)[0, :-1].argmax(-1), text[0, 1:])


def check_pairs_both_ways(theirs: nn.Module, tmp_path: Path) -> Path:
    """Import an encoder-decoder of transformers, export it again, and check both directions; return the export."""
    randomize_weights(theirs)
    theirs.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    ours = import_run(tmp_path / "theirs", tmp_path / "runs")
    check_same_pairs(ours.network, theirs, PAIR["vocab_size"])
    exported = export_run(tmp_path / "runs" / "imported", tmp_path / "ours")
    before, after = load(str(tmp_path / "runs" / "imported")).state_dict(), read_folder(exported).module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].cpu(), after[name]) for name in before)
    return exported
