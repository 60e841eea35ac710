"""Options of x-transformers that follow other rules than their class here, with the rule that ours follows."""

import pytest
import torch
from parity.models import build_pair, compute, draw_tokens
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, VOCAB, make_decoder
from torch import nn
from torch.testing import assert_close

from lightning_xt import Inputs, LanguageModel, SigSoftmax, generate

pytestmark = pytest.mark.slow


def build_ours(**options: object) -> LanguageModel:
    return LanguageModel.from_config(make_decoder("", **options).ours).double().eval()


def test_latent_attention():
    text = make_decoder("", layers="attn_use_latent_kv=True, attn_dim_latent_kv=6").theirs
    theirs = build(text).eval()
    model = build_ours(attention={"projection": {"class_path": "Latent", "init_args": {"latent_dim": 6}}})
    tokens = draw_tokens()
    before = compute(theirs, tokens), model.decoder(tokens)
    with torch.no_grad():
        theirs.attn_layers.layers[0][1].to_latent_kv.weight *= 3
        model.decoder.stack.sublayers["0_attention"].branch.projection.to_latent.linear.weight *= 3
    # The norm of a latent vector takes away its length.
    assert_close(model.decoder(tokens), before[1], rtol=0, atol=1e-3)
    assert not torch.allclose(compute(theirs, tokens), before[0], atol=1e-3)


def test_layer_mixture():
    plain, mixed = build_ours(), build_ours(decoder={"links": ["LayerMixture"]})
    mixed.load_state_dict(plain.state_dict(), strict=False)
    tokens = draw_tokens()
    assert_close(mixed.decoder(tokens), plain.decoder(tokens))
    with in_float64():
        fresh = eval(make_decoder("", layers="integrate_layers=True").theirs, vars(x_transformers)).double()
    weights = fresh.attn_layers.layer_integrators[2].to_weights(torch.randn(2, 5, 16, dtype=torch.float64))
    assert weights.shape[-1] == 3 and bool((weights > 0.05).all())
    assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))


def test_adaptive_layer_scale():
    given = {"class_path": "AdaptiveLayerScale", "init_args": {"condition_dim": 5}}
    sublayers = build_ours(decoder={"scale": given}).decoder.stack.sublayers
    out, condition = torch.randn(2, 3, 16, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    inputs = Inputs(condition=condition)
    assert all(not each.scale(out, inputs).any() for each in sublayers.values())
    with in_float64():
        layers = "use_adaptive_layerscale=True, dim_condition=5"
        fresh = eval(make_decoder("", layers=layers).theirs, vars(x_transformers)).double()
    scale = fresh.attn_layers.layers[1][1]
    assert_close(scale(out, condition=condition), scale.fn(out) * torch.tensor(-2.0, dtype=torch.float64).sigmoid())


def test_hidden_past():
    theirs, model, _ = build_pair(make_decoder(""))
    hiding = LanguageModel.from_config({**make_decoder("").ours, "objective": "ForgetfulNextToken"}).double()
    hiding.decoder.load_state_dict(model.decoder.state_dict())
    tokens = draw_tokens()
    with in_float64():
        plain = x_transformers.AutoregressiveWrapper(theirs).eval()(tokens)
        hidden = x_transformers.AutoregressiveWrapper(theirs, mask_prob=0.5).eval()(tokens)
    assert not torch.allclose(hidden, plain, atol=1e-4)
    assert_close(hiding.eval().loss(tokens), plain)
    assert not torch.allclose(hiding.train().loss(tokens), plain, atol=1e-4)


def test_par_order():
    theirs = build(make_decoder("", layers="par_ratio=5, depth=3").theirs)
    layout = {"class_path": "PAROrder", "init_args": {"ratio": 5}}
    model = build_ours(decoder={"depth": 3, "layout": layout})
    assert len(theirs.attn_layers.layers) == 8
    assert len(model.decoder.stack.steps) == 6


def test_gated_biases():
    theirs = build(make_decoder("", layers="ff_glu=True, ff_no_bias=True").theirs)
    assert theirs.attn_layers.layers[1][1].ff[0].proj.bias is not None
    model = build_ours(decoder={"feedforward": {"class_path": "GEGLU", "init_args": {"bias": False}}})
    assert not [name for name, _ in model.decoder.named_parameters() if "bias" in name]


def test_sigsoftmax():
    theirs = build(make_decoder("", wrapper="sigsoftmax_logits=True").theirs).eval()
    head = SigSoftmax(nn.Embedding(VOCAB, 16)).double()
    with torch.no_grad():
        theirs.to_logits.weight[3] = -100 * theirs.attn_layers.final_norm.gamma.new_ones(16)
        head.head.to_logits.weight.copy_(theirs.to_logits.weight)
        states = torch.full((1, 1, 16), 1.0, dtype=torch.float64)
        logits = head(states)[0, 0]
    assert logits[3] == -3200.0
    raw = states[0, 0] @ theirs.to_logits.weight.T
    assert (raw + raw.sigmoid().log())[3] == -torch.inf
    assert_close(logits.softmax(-1), raw.exp() * raw.sigmoid() / (raw.exp() * raw.sigmoid()).sum())


def check_caches(layers: str, **ours: object) -> None:
    """Assert that a step with their cache differs from their forward, with which a step with ours agrees."""
    theirs, model, _ = build_pair(make_decoder("", layers=layers, **ours))
    tokens = draw_tokens()
    with in_float64(), torch.no_grad():
        full = theirs(tokens)
        _, cache = theirs(tokens[:, :-1], return_intermediates=True)
        last = theirs(tokens, cache=cache)
    assert not torch.allclose(last[:, -1], full[:, -1], atol=1e-3)
    with torch.no_grad():
        cache = model.decoder.new_cache(2, LENGTH)
        model.decoder(tokens[:, :-1], cache=cache)
        assert_close(model.decoder(tokens[:, -1:], cache=cache)[:, -1], full[:, -1])


def test_forget_gates_while_decoding():
    check_caches("attn_data_dependent_alibi=True", attention={"position": "Forgetting"})


def test_token_shift_while_decoding():
    check_caches("shift_tokens=1", decoder={"shift": "TokenShift"})


def test_end_in_the_prompt():
    theirs, model, _ = build_pair(make_decoder(""))
    tokens = draw_tokens()[:, :4]
    end = int(tokens[0, 1])
    tokens[1, 1] = end
    with in_float64():
        wrapped = x_transformers.AutoregressiveWrapper(theirs, pad_value=5)
        free = wrapped.generate(tokens, 6, temperature=0.0)
        ended = wrapped.generate(tokens, 6, temperature=0.0, eos_token=end)
    assert (ended == 5).all()
    assert end not in free[0].tolist()
    assert generate(model.decoder, tokens, 6, temperature=0, end=end)[0].tolist() == free[0].tolist()
