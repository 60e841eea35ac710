from functools import partial

import pytest
import torch
from catalogue import BUILDS, DEPTH, HEADS, attention, attention_layers, decoder, delta_net, example, randomise, shared
from encoder_catalogue import encoder, pair, source
from sampled_laws import sample

import lightning_xt
from lightning_xt.inference.attention_maps import compute_attention_maps
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.mixers.hybrid import Hybrid
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.score_mods.base import ScoreMod

TOKENS, INPUTS = example(2, 7)
SLOTS = ("position", "projection", "score", "score_mods", "normalizer", "value_mods", "attention", "layout", "passes")
BUILT = {
    name: build for name, build in BUILDS.items() if "=" not in name or name.partition("=")[0] in (*SLOTS, "segments")
}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


def changes_weights(layer):
    return any(type(mod).modify_weights is not ScoreMod.modify_weights for mod in layer.score_mods)


def is_plain(layer):
    """Return whether the output of an attention follows from its weights and the values in the cache."""
    changed = len(layer.value_mods) + len(layer.output_mods) or layer.output_projection is not None
    return type(layer.projection) is MultiHead and not changed and layer.memory is None


def check_output(layer, args, made):
    """Compare the output of an attention call with its weights times its values."""
    out, trace = made
    own = trace.maps[-1]
    values = own.values.repeat_interleave(layer.shape.heads // own.values.shape[1], dim=1)
    close(out, layer.to_out((own.weights @ values).transpose(1, 2).flatten(2)))


@sample("build", BUILT)
@torch.no_grad()
def test_weights_of_every_variant(build):
    model = shared(build)
    layers = attention_layers(model)
    hooks = [each.register_forward_hook(check_output) for each in layers if is_plain(each)]
    try:
        maps = compute_attention_maps(model, TOKENS, inputs=INPUTS)
    finally:
        for hook in hooks:
            hook.remove()
    sums_to_one = all(type(each.normalizer) is Softmax and not changes_weights(each) for each in layers)
    assert not maps.encoder
    assert bool(maps.decoder) == any(each.shape.context_dim is None for each in layers)
    for each in (*maps.decoder, *maps.cross):
        assert each.weights.isfinite().all()
        if sums_to_one:
            close(each.weights.sum(dim=-1), torch.ones(each.weights.shape[:-1], dtype=torch.float64))
    for each in maps.decoder:
        assert not each.weights[..., each.persistent :].triu(1).any()


@torch.no_grad()
def test_layers_are_stacked_and_named():
    maps = compute_attention_maps(decoder(attention=attention(memory=3)), TOKENS)
    assert maps.stack("decoder").shape == (DEPTH, 2, HEADS, 7, 3 + 7)
    assert [(each.layer, each.persistent) for each in maps.decoder] == [(0, 3), (1, 3)]
    mixed = Cycle, {"recipes": [delta_net(), attention(), partial(Hybrid, recipes=[delta_net(), attention()])]}
    maps = compute_attention_maps(decoder(depth=3, attention=partial(mixed[0], **mixed[1])), TOKENS)
    assert maps.missing == ("decoder 0_attention: DeltaNet", "decoder 2_attention: DeltaNet")
    assert [each.layer for each in maps.decoder] == [1, 2]
    with pytest.raises(ValueError, match="the cross has no attention, which cannot be stacked"):
        maps.stack("cross")


@torch.no_grad()
def test_a_translation_has_an_alignment():
    model, (src, mask), tgt = randomise(pair).train(), source(2, 7), TOKENS[:, :5]
    maps = lightning_xt.compute_attention_maps(model, tgt, source=src, source_mask=mask)
    assert model.training and maps.missing == ()
    alignment = maps.stack("cross")
    assert (alignment.shape, maps.stack("encoder").shape[-2:]) == ((DEPTH, 2, HEADS, 5, 7), (7, 7))
    close(alignment.sum(dim=-1), torch.ones(DEPTH, 2, HEADS, 5, dtype=torch.float64))
    assert not alignment.permute(0, 2, 3, 1, 4)[..., ~mask].any() and not mask.all()
    with pytest.raises(ValueError, match="an encoder-decoder needs a source"):
        compute_attention_maps(model, tgt)
    with pytest.raises(ValueError, match="Decoder reads no source"):
        compute_attention_maps(model.decoder, tgt, source=src)
    with pytest.raises(ValueError, match="omit source and source_mask"):
        compute_attention_maps(model.decoder, tgt, source_mask=mask)


@torch.no_grad()
def test_encoders_see_both_ways():
    plain = encoder().eval()
    headed = EncoderWithHead(11, encoder=lambda size: plain, head=lambda table: torch.nn.Linear(plain.dim, 12))
    for model in (plain, headed):
        maps = compute_attention_maps(model, TOKENS)
        assert maps.stack("encoder").triu(1).any() and maps.decoder == maps.cross == ()
