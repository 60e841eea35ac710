"""Weights of x-transformers that cannot be imported end in one sentence, with nothing written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import build
from parity.rows import make_decoder
from refused_imports import check_refused
from torch import Tensor

from lightning_xt.system.imports import NotAllowedError

PLAIN = make_decoder("")
HEADS = make_decoder("", layers="attn_qk_rmsnorm=True")
GATED = make_decoder("", layers="ff_glu=True, ff_no_bias=True")
PREFIX = "attn_layers.layers"


def save(text: str, file: Path, **others: Any) -> dict[str, Tensor]:
    weights = build(text).float().state_dict()
    torch.save({**weights, **others}, file)
    return weights


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("Transformer(", "--call: line 1, column 12, near 'Transformer(': this is not Python"),
        ("nowhere.py", "--call: 'nowhere.py' is neither a call nor a file"),
        ("__import__('os').system('touch sprung')", "--call: line 1, column 1"),
        (
            make_decoder("", layers="gate_residual=True").theirs,
            "--call: no model here gives the numbers of this one: gate_residual: GRUGate; it resets before its map",
        ),
        (
            make_decoder("", wrapper="num_memory_tokens=3").theirs,
            "--call: no model here gives the numbers of this one: num_memory_tokens=3: ",
        ),
        (
            "TransformerWrapper(num_tokens=17, max_seq_len=12, attn_layers=Encoder(dim=16, depth=2))",
            "an Encoder alone: a MaskedLanguageModel has a further token, the mask; `lightning-xt from-xt` prints",
        ),
        (PLAIN.theirs.replace("depth=2", "depth=10000"), "has 10000 layers, but the weights have "),
        (PLAIN.theirs.replace("dim=16", "dim=1000000"), "token_emb.emb.weight has shape (17, 16) instead of (17, 10"),
        (PLAIN.theirs.replace("depth=2", "depth=1"), f"its tensors do not fit: {PREFIX}.2.0.0.gamma is left over; "),
        (PLAIN.theirs.replace("depth=2", "depth=3"), f"its tensors do not fit: {PREFIX}.4.0.0.gamma is missing; "),
    ],
)  # fmt: skip
def test_a_call_is_refused(call: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(PLAIN.theirs, tmp_path / "x.pt")
    check_refused([str(tmp_path / "x.pt"), "--call", call], sentence, tmp_path, capsys)
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    ("text", "change", "sentence"),
    [
        (HEADS.theirs, {}, f"{PREFIX}.0.1.q_rmsnorm.gamma differs between heads, but heads share the gains of a norm"),
        (GATED.theirs, {}, f"{PREFIX}.1.1.ff.0.proj.bias differs by "),
        (
            make_decoder("", layers="rotary_pos_emb=True").theirs,
            {"attn_layers.rotary_pos_emb.inv_freq": torch.tensor([1.0, 0.5])},
            "attn_layers.rotary_pos_emb.inv_freq differs by 0.49 from the only value that the model can have here",
        ),
        (PLAIN.theirs, {"step": 3}, "is not a state dict: its step is a int, not a tensor; save it again: "),
        (PLAIN.theirs, {"trap": NotAllowedError}, "and loading that could run any code; give a checkpoint that loads"),
    ],
)  # fmt: skip
def test_weights_are_refused(
    text: str, change: Mapping[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(text, tmp_path / "x.pt", **change)
    check_refused([str(tmp_path / "x.pt"), "--call", text], sentence, tmp_path, capsys)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x04.")
    call = ["--call", PLAIN.theirs]
    sentence = "x.pt cannot be read as a checkpoint: it is not in the format of torch.save"
    check_refused([str(tmp_path / "x.pt"), *call], sentence, tmp_path, capsys)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04.")
    check_refused([str(tmp_path / "x.safetensors"), *call], "x.safetensors cannot be read", tmp_path, capsys)
    sentence = "is not a file; --call belongs to the weights of an x-transformers model, in one file"
    check_refused([str(tmp_path), *call], sentence, tmp_path, capsys)
