"""Models of x-transformers in which a token sees later ones, and ours in which it does not."""

from collections.abc import Callable

import pytest
import torch
from parity.models import build_pair, compute, draw_tokens
from parity.reference import build
from parity.rows import LENGTH, VOCAB, list_pairs, make_decoder
from torch import Tensor

from lightning_xt import LanguageModel, Seq2Seq

pytestmark = pytest.mark.slow


def sees_ahead(model: Callable[[Tensor], Tensor]) -> bool:
    """Return True if another last token changes logits of earlier ones."""
    tokens = draw_tokens()
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCAB
    with torch.no_grad():
        return not torch.allclose(model(tokens)[:, :-1], model(other)[:, :-1], rtol=0, atol=1e-12)


def test_orthogonal_update():
    row = make_decoder("", layers="orthog_residual=True", decoder={"residual": "OrthogonalUpdate"})
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()
    assert not torch.allclose(model.decoder(tokens), compute(theirs, tokens), atol=1e-3)
    assert sees_ahead(lambda tokens: compute(theirs, tokens)) and not sees_ahead(model.decoder)
    # What is added is orthogonal to the stream of each token.
    residual = model.decoder.stack.sublayers["0_attention"].residual
    stream, out = torch.randn(2, 2, LENGTH, 16, dtype=torch.float64)
    added = residual.write(stream, out) - stream
    torch.testing.assert_close((added * stream).sum(-1), torch.zeros(2, LENGTH, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("option", ["attn_orthog_projected_values", "attn_orthog_projected_values_per_head"])
def test_orthogonal_values(option: str):
    row = make_decoder("", layers=f"{option}=True", attention={"output_mods": ["Orthogonal"]})
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()
    assert not torch.allclose(model.decoder(tokens), compute(theirs, tokens), atol=1e-3)
    assert sees_ahead(lambda tokens: compute(theirs, tokens)) and not sees_ahead(model.decoder)


def test_mean_variance_split():
    theirs = build(make_decoder("", layers="mv_split_residual=True").theirs).eval()
    assert sees_ahead(lambda tokens: compute(theirs, tokens))
    with pytest.raises(ValueError, match="MeanVarianceSplit averages over the tokens of a row, later ones too"):
        LanguageModel.from_config(make_decoder("", decoder={"residual": "MeanVarianceSplit"}).ours)


def test_inverted_attention():
    row = next(row for row in list_pairs() if row.name == "plain")
    theirs = build(row.theirs[:-1] + ", dec_cross_attn_inverted_attention=True)").eval()
    context = torch.randn(2, 5, 16, dtype=torch.float64)
    assert sees_ahead(lambda tokens: compute(theirs.decoder.net, tokens, context=context))
    across = {"class_path": "Attention", "init_args": {"normalizer": "Inverted"}}
    with pytest.raises(ValueError, match="Inverted lets all queries compete"):
        Seq2Seq.from_config({"decoder": {"dim": 16, "depth": 1, "cross_attention": across}, "encoder": {"dim": 16}})
