"""Combinations that fail in x-transformers and work here."""

from copy import deepcopy

import pytest
import torch
from parity.models import build_pair, compute, draw_tokens
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, VOCAB, make_decoder
from torch.testing import assert_close

from lightning_xt import LanguageModel, generate

pytestmark = pytest.mark.slow


def build_ours(**options: object) -> LanguageModel:
    return LanguageModel.from_config(make_decoder("", **options).ours).double().eval()


def check_causal(model: LanguageModel) -> None:
    """Assert that a step with a cache continues a forward, so that no token reads a later one."""
    tokens = draw_tokens()
    with torch.no_grad():
        cache = model.decoder.new_cache(2, LENGTH)
        pieces = [model.decoder(each, cache=cache) for each in tokens.split(5, dim=1)]
        assert_close(torch.cat(pieces, dim=1), model.decoder(tokens))


def check_grouped(layers: str, **ours: object) -> None:
    """Assert that theirs fails if heads share keys and values, and that ours does not."""
    theirs = build(make_decoder("", layers=f"{layers}, attn_kv_heads=2").theirs).eval()
    with pytest.raises(RuntimeError):
        compute(theirs, draw_tokens())
    check_causal(build_ours(attention={"kv_heads": 2, **ours}))


def test_grouped_value_residual():
    check_grouped("add_value_residual=True", value_mods=["ValueResidual"])


def test_grouped_value_norm():
    check_grouped("attn_value_rmsnorm=True", value_mods=["ValueNorm"])


def test_grouped_polar():
    check_grouped("polar_pos_emb=True", position="Polar")


def test_few_keys():
    normalizer = {"class_path": "TopKSoftmax", "init_args": {"num_keys": 5}}
    row = make_decoder("", layers="attn_sparse_topk=5", attention={"normalizer": normalizer})
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()[:, :4]
    with pytest.raises(RuntimeError):
        compute(theirs, tokens)
    # With fewer keys than 5 it is a softmax.
    plain, _, _ = build_pair(make_decoder(""))
    assert_close(model.decoder(tokens), compute(plain, tokens))


def test_macaron_u_net():
    with pytest.raises(IndexError):
        build(make_decoder("", layers="macaron=True, unet_skips=True, depth=4").theirs)
    check_causal(build_ours(decoder={"layout": "Macaron", "links": ["UNetSkips"], "depth": 4}))


def test_ragged_sinusoids():
    wrapper = "use_abs_pos_emb=True, scaled_sinu_pos_emb=True"
    theirs, model, _ = build_pair(make_decoder("", wrapper=wrapper, decoder={"embeddings": ["SinusoidalPositions"]}))
    prompts, lengths = torch.randint(VOCAB, (2, 5)), torch.tensor([5, 3])
    with in_float64(), pytest.raises(RuntimeError):
        x_transformers.AutoregressiveWrapper(theirs).generate(prompts, 4, prompt_lens=lengths, temperature=0.0)
    found = generate(model.decoder, prompts, 4, lengths=lengths, temperature=0)
    with in_float64():
        alone = x_transformers.AutoregressiveWrapper(theirs).generate(prompts[1:, :3], 4, temperature=0.0)
    assert found[1].tolist() == alone[0].tolist()


def test_copied_tied_head():
    theirs, model, _ = build_pair(make_decoder("", wrapper="tie_embedding=True", decoder={"head": "TiedHead"}))
    tokens = draw_tokens()
    changed = deepcopy(theirs), deepcopy(model.decoder)
    with torch.no_grad():
        for table in (changed[0].token_emb.emb.weight, changed[1].token_embedding.weight):
            table.zero_()
    assert compute(changed[0], tokens).abs().max() > 0.1
    assert not changed[1](tokens).any()
