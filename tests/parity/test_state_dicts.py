"""Weights of x-transformers are imported by the names of their tensors, with the call of their model as text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.comparisons import CLOSE, compare_logits
from parity.copier import copy_model
from parity.models import compute
from parity.reference import build
from parity.rows import LENGTH, SOURCE_VOCAB, VOCAB, Row, list_combinations, list_decoders, list_pairs, make_decoder
from parity.test_parity import make_given
from safetensors.torch import save_file
from torch import nn

from lightning_xt import Decoder, EncoderDecoder
from lightning_xt.cli import main
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.commands.models.loading import load
from lightning_xt.commands.transfer.import_weights import translate_call
from lightning_xt.exchange.tensor_rules import TensorMisfitError, import_tensors
from lightning_xt.exchange.x_transformers.network_rules import list_rules
from lightning_xt.system.messages import UserError

QUICK = (
    "all at once",
    "unit norm and memory",
    "tied embedding",
    "deep embed",
    "relative bias of grouped heads",
    "alibi",
)
"""Rows in the default suite."""
GROUPS, SIZE = 8, 25


CALL = make_decoder("", layers="rotary_pos_emb=True, attn_kv_heads=2, ff_glu=True, ff_swish=True")
PAIR = next(row for row in list_pairs() if row.name == "one table of tokens")


def mark(rows: Iterable[Row]) -> list[Any]:
    """Make parameters of a test, most of them slow."""
    return [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.slow) for row in rows]


def import_file(file: Path, call: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Import weights by the command, and return the model of the run and the output."""
    assert main(["import", str(file), "--call", call, "--output", str(folder / "runs")]) == 0
    said = capsys.readouterr().out
    return load(str(folder / "runs" / file.stem)).cpu().float().eval(), said


def import_row(row: Row, theirs: nn.Module) -> nn.Module:
    """Return the network that an import of a row's weights gives, in float64."""
    architecture = translate_call(row.theirs)
    options = architecture.options
    if architecture.kind == "Seq2Seq":
        sizes = [stack.wrapper["num_tokens"] for stack in architecture.stacks.values()]
        build_network = lambda: make_recipe(EncoderDecoder, options)(*sizes).double().eval()  # noqa: E731
    else:
        build_network = lambda: make_recipe(Decoder, options["decoder"])(VOCAB).double().eval()  # noqa: E731
    # The copy rounds the constants of theirs, which are float32 here.
    copy_model(theirs, build_network(), row.zeros)
    network = build_network()
    import_tensors(network, list_rules(network, architecture.stacks), theirs.state_dict())
    return network


@pytest.mark.parametrize("row", mark(list_decoders()))
def test_a_decoder_gives_the_same_logits(row: Row) -> None:
    theirs = build(row.theirs, zeros=row.zeros).eval()
    network, tokens = import_row(row, theirs), torch.randint(VOCAB, (2, LENGTH))
    given, inputs = make_given(row)
    compare_logits(network(tokens, inputs=inputs), compute(theirs, tokens, **given))


@pytest.mark.parametrize("row", mark(list_pairs()))
def test_an_encoder_decoder_gives_the_same_logits(row: Row) -> None:
    theirs = build(row.theirs).eval()
    network = import_row(row, theirs)
    src, tgt = torch.randint(min(SOURCE_VOCAB, VOCAB), (2, 9)), torch.randint(VOCAB, (2, LENGTH))
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    context = compute(theirs.encoder, src, mask=mask, return_embeddings=True)
    compare_logits(network(src, tgt, mask), compute(theirs.decoder.net, tgt, context=context, context_mask=mask))


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_pairs_of_options_give_the_same_logits_or_are_refused(group: int) -> None:
    verdicts = []
    for row in list_combinations(GROUPS * SIZE, seed=0)[group::GROUPS]:
        tokens = torch.randint(VOCAB, (2, LENGTH))
        try:
            theirs = build(row.theirs, zeros=row.zeros).eval()
            compute(theirs, tokens)
        except (AssertionError, AttributeError, IndexError, RuntimeError):
            continue
        try:
            network = import_row(row, theirs)
        except (UserError, TensorMisfitError):
            verdicts.append("refused")
            continue
        # Their constants are rounded by now.
        torch.testing.assert_close(network(tokens), compute(theirs, tokens), **CLOSE, msg=row.name)
        verdicts.append("equal")
    assert verdicts.count("equal") > SIZE // 2


@pytest.mark.parametrize("form", ["safetensors", "torch.save", "checkpoint"])
def test_a_file_becomes_a_run(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = build(CALL.theirs).float().eval()
    weights = theirs.state_dict()
    (tmp_path / "call.py").write_text(f"from x_transformers import *\nmodel = AutoregressiveWrapper({CALL.theirs})\n")
    file = tmp_path / "theirs.pt"
    if form == "safetensors":
        file = tmp_path / "theirs.safetensors"
        save_file({f"net.{name}": each for name, each in weights.items()}, file)
    elif form == "torch.save":
        torch.save({f"module._orig_mod.{name}": each for name, each in weights.items()}, file)
    else:
        torch.save({"epoch": 3, "model_state_dict": weights}, file)
    found, said = import_file(file, str(tmp_path / "call.py"), tmp_path, capsys)
    tokens = torch.randint(VOCAB, (2, LENGTH))
    torch.testing.assert_close(found.decoder(tokens), theirs(tokens), atol=1e-5, rtol=0)
    assert "texts are ids as numbers, such as 5 3 17; the weights have 17 of them\n" in said
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "theirs"]


def test_an_encoder_decoder_becomes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = build(PAIR.theirs).float().eval()
    torch.save(theirs.state_dict(), tmp_path / "pair.pt")
    found, said = import_file(tmp_path / "pair.pt", PAIR.theirs, tmp_path, capsys)
    src, tgt = torch.randint(VOCAB, (2, 9)), torch.randint(VOCAB, (2, LENGTH))
    expected = theirs.decoder.net(tgt, context=theirs.encoder(src, return_embeddings=True))
    torch.testing.assert_close(found.network(src, tgt), expected, atol=1e-5, rtol=0)
    assert "a target begins with the id 1, the padding is 0, and no id ends it\n" in said


def test_bytes_generate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A vocabulary of 256 is read as bytes, and the run serves every command."""
    row = make_decoder("", layers="alibi_pos_bias=True", wrapper="num_tokens=256")
    torch.save(build(row.theirs).float().state_dict(), tmp_path / "bytes.pt")
    _, said = import_file(tmp_path / "bytes.pt", row.theirs, tmp_path, capsys)
    assert "256 tokens are read as the values of bytes\n" in said
    run = str(tmp_path / "runs" / "bytes")
    assert main(["generate", run, "--prompt", "ab", "--max_new_tokens", "3", "--temperature", "0"]) == 0
