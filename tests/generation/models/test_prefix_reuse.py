"""Prefix reuse of sequences with inputs besides their tokens; see also `nn/test_mixers.py` and `inference`."""

from functools import partial

import pytest
import torch
from catalogue import VOCAB, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.prefix_reuse import PrefixReuse
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm


@torch.no_grad()
def test_a_sequence_with_inputs_is_run_as_a_whole() -> None:
    model = randomise(lambda: decoder(norm=partial(AdaptiveRMSNorm, condition_dim=3)))
    reusing, tokens = PrefixReuse(model), torch.arange(6)[None] % VOCAB
    for seed in (0, 1):
        condition = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        inputs = Inputs(condition=condition)
        reusing.expect(tokens[0].tolist(), inputs)
        made = reusing(tokens, inputs=inputs, cache=reusing.new_cache(1, 9))
        torch.testing.assert_close(made, model(tokens, inputs=inputs))


def test_inputs_that_were_not_announced_are_refused() -> None:
    reusing, tokens = PrefixReuse(decoder()), torch.arange(6)[None] % VOCAB
    for inputs in (None, Inputs(visible_prefix=torch.tensor([3]))):
        reusing.expect(tokens[0].tolist())
        cache = reusing.new_cache(1, 9)
        if inputs is None:
            reusing(tokens, cache=cache)
    with pytest.raises(
        ValueError, match=r"the sequence has inputs .*, but none were announced, .* give them to `expect`"
    ):
        reusing(tokens, inputs=inputs, cache=cache)
