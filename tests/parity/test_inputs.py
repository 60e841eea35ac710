"""Inputs of a forward besides the tokens change the same numbers."""

from typing import Any

import pytest
import torch
from parity.comparisons import compare_logits, compare_training
from parity.copier import copy_model
from parity.ledger import Ledger
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, VOCAB, list_decoders
from torch import Tensor, nn

from lightning_xt import Inputs, LanguageModel, generate
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.generation.models.contrastive import Contrastive

pytestmark = pytest.mark.slow
ROWS = {row.name: row for row in list_decoders()}


def build_pair(name: str, seed: int = 0) -> tuple[nn.Module, LanguageModel, Ledger]:
    """Build both models of a row, with the same weights."""
    theirs = build(ROWS[name].theirs, seed).eval()
    model = LanguageModel.from_config(ROWS[name].ours).double().eval()
    return theirs, model, copy_model(theirs, model.decoder)


def compute(theirs: nn.Module, tokens: Tensor, **options: Any) -> Tensor:
    with in_float64():
        logits: Tensor = theirs(tokens, **options)
    return logits


def draw_tokens() -> Tensor:
    return torch.randint(VOCAB, (2, LENGTH))


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", ["rotary", "alibi", "memory of grouped heads"])
def test_soft_prefix(name: str):
    theirs, model, ledger = build_pair(name)
    tokens, prefix = draw_tokens(), draw(2, 3, 16)
    expected = compute(theirs, tokens, prepend_embeds=prefix, excise_prepend_embeds=True)
    compare_logits(model.decoder(tokens, inputs=Inputs(prefix=prefix)), expected)
    with in_float64():
        their_loss = x_transformers.AutoregressiveWrapper(theirs)(tokens, prepend_embeds=prefix)
    compare_training(their_loss, model.train().loss(tokens, inputs=Inputs(prefix=prefix)), ledger)


def test_visible_prefix():
    theirs, model, _ = build_pair("rotary")
    text = ROWS["rotary"].theirs.replace("=Decoder(", "=PrefixDecoder(")
    seeing = build(text).eval()
    seeing.load_state_dict(theirs.state_dict())
    tokens, seen = draw_tokens(), torch.tensor([3, 5])
    seeing.attn_layers.rotary_pos_emb.inv_freq = theirs.attn_layers.rotary_pos_emb.inv_freq
    expected = compute(seeing, tokens, prefix_attn_len=seen)
    compare_logits(model.decoder(tokens, inputs=Inputs(visible_prefix=seen)), expected)
    assert not torch.allclose(expected, compute(theirs, tokens))


def test_hidden_tokens():
    theirs, model, _ = build_pair("rotary")
    tokens, hidden = draw_tokens(), torch.zeros(2, LENGTH, dtype=torch.bool)
    hidden[0, 2:4] = hidden[1, 7] = True
    expected = compute(theirs, tokens, self_attn_kv_mask=~hidden)
    found = model.decoder(tokens, inputs=Inputs(hidden_tokens=hidden))
    # A hidden token sees itself here, and nobody reads what it becomes.
    compare_logits(found[~hidden], expected[~hidden])


def test_mask():
    theirs, model, _ = build_pair("memory")
    tokens = draw_tokens()
    mask = (torch.rand(LENGTH, LENGTH) < 0.6) | torch.eye(LENGTH, dtype=torch.bool)
    # Theirs has no columns for the persistent keys.
    padded = torch.cat((torch.ones(LENGTH, 3, dtype=torch.bool), mask), dim=1)
    expected = compute(theirs, tokens, attn_mask=padded)
    compare_logits(model.decoder(tokens, inputs=Inputs(mask=mask.expand(2, -1, -1))), expected)


def test_bias():
    theirs, model, _ = build_pair("rotary")
    tokens, bias = draw_tokens(), draw(1, 4, LENGTH, LENGTH)
    compare_logits(model.decoder(tokens, inputs=Inputs(bias=bias)), compute(theirs, tokens, attn_bias=bias))


@pytest.mark.parametrize("name", ["rotary", "alibi"])
def test_positions(name: str):
    theirs, model, _ = build_pair(name)
    tokens = draw_tokens()
    positions = torch.stack((torch.randperm(LENGTH), 2 * torch.arange(LENGTH) + 3))
    expected = compute(theirs, tokens, pos=positions)
    compare_logits(model.decoder(tokens, inputs=Inputs(positions=positions)), expected)


def test_keys_and_values_of_another_model():
    theirs, model, _ = build_pair("grouped heads")
    tokens = draw_tokens()
    pairs = [(draw(2, 2, 5, 8), draw(2, 2, 5, 8)) for _ in range(2)]
    expected = compute(theirs, tokens, self_attn_additional_kv=pairs)
    order = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7])
    given = [KeysValues(keys[..., order], values) for keys, values in pairs]
    compare_logits(model.decoder(tokens, inputs=Inputs(keys_values=given)), expected)


def test_rows_of_different_lengths():
    theirs, model, ledger = build_pair("rotary")
    tokens, lengths = draw_tokens(), torch.tensor([LENGTH, 7])
    with in_float64():
        their_loss = x_transformers.AutoregressiveWrapper(theirs).train()(tokens, lens=lengths)
    scored = torch.arange(1, LENGTH) < lengths[:, None]
    compare_training(their_loss, model.train().loss(tokens, scored=scored), ledger)


@pytest.mark.parametrize("name", ["rotary", "alibi", "learned positions", "grouped heads"])
def test_prompts_of_different_lengths(name: str):
    theirs, model, _ = build_pair(name)
    prompts, lengths = torch.randint(VOCAB, (2, 5)), torch.tensor([5, 3])
    with in_float64():
        wrapped = x_transformers.AutoregressiveWrapper(theirs)
        expected = wrapped.generate(prompts, 6, prompt_lens=lengths, temperature=0.0)
    assert generate(model.decoder, prompts, 6, lengths=lengths, temperature=0).tolist() == expected.tolist()


def test_contrastive_decoding():
    theirs, model, _ = build_pair("rotary")
    their_amateur, our_amateur, _ = build_pair("plain", seed=1)
    prompts = torch.randint(VOCAB, (2, 4))
    with in_float64():
        wrapped = x_transformers.AutoregressiveWrapper(theirs)
        options = {"contrastive_decode_kwargs": {"alpha": 0.1, "beta": 2.0}}
        expected = wrapped.generate(prompts, 8, temperature=0.0, amateur_model=their_amateur, **options)
    both = Contrastive(model.decoder, [our_amateur.decoder], strength=2.0, plausibility=0.1)
    found = generate(both, prompts, 8, temperature=0)
    assert found.tolist() == expected.tolist() != generate(model.decoder, prompts, 8, temperature=0).tolist()
