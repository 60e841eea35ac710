"""Options of x-transformers with another formula than the paper: ours, with the same weights, follows the paper."""

import pytest
import torch
from parity.ledger import Ledger
from parity.models import build_pair, compute, draw, draw_tokens
from parity.parts import copy_gru
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, make_decoder
from torch.testing import assert_close

from lightning_xt import GRUGate, LanguageModel, ManifoldHyperConnection, Trace
from lightning_xt.core.shapes import LayerShape

pytestmark = pytest.mark.slow


def differ(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return not torch.allclose(ours, theirs, rtol=0, atol=1e-3)


def test_hyper_connections():
    theirs = build("HyperConnection(8, layer_index=0, num_residual_streams=3)")
    with torch.no_grad():
        theirs.static_alpha.copy_(torch.eye(3, 4))
    ours = ManifoldHyperConnection(LayerShape(dim=8, depth=2), 0, num_streams=3).double()
    stream = draw(2, 5, 3, 8)
    with in_float64():
        flat = stream.permute(0, 2, 1, 3).flatten(0, 1)
        _, mixed, _ = theirs.prepare(flat)
    total = stream.sum(dim=2)
    # A sublayer that writes nothing makes every stream the sum of all there; here their sum stays.
    assert_close(mixed, total.unsqueeze(2).expand_as(mixed))
    assert_close(ours.write(stream, torch.zeros(2, 5, 8, dtype=torch.float64)).sum(dim=2), total)


def test_mixture_of_softmaxes():
    head = {"class_path": "MixtureOfSoftmaxes", "init_args": {"num_mixtures": 3}}
    row = make_decoder("", wrapper="mixture_of_softmax=True, mixture_of_softmax_k=3", decoder={"head": head})
    theirs, model, _ = build_pair(row)
    tokens, own = draw_tokens(), model.decoder.head
    found = model.decoder(tokens)
    assert differ(found, compute(theirs, tokens))
    # The output of the paper, in theirs without the tanh.
    states = model.decoder.compute_states(tokens)
    prior = torch.einsum("bnd,kd->bnk", states, own.to_prior.weight).softmax(dim=-1)
    vectors = torch.einsum("bnd,kcd->bnkc", states, own.to_vectors.weight.unflatten(0, (3, -1)))
    for vector, expected in ((vectors.tanh(), found), (vectors, compute(theirs, tokens))):
        probabilities = torch.einsum("bnkc,vc->bnkv", vector, own.head.to_logits.weight).softmax(dim=-1)
        assert_close(torch.einsum("bnkv,bnk->bnv", probabilities, prior).log(), expected)


def test_gru_gate():
    theirs, ours = build("GRUGating(8)"), GRUGate(LayerShape(dim=8, depth=2), 0).double()
    with torch.no_grad():
        # Biases of the update gate only, as in the paper.
        theirs.gru.bias_hh.zero_()
        theirs.gru.bias_ih[:8] = theirs.gru.bias_ih[16:] = 0
    ledger = Ledger(theirs, ours)
    copy_gru(theirs.gru, ours, ledger)
    ledger.check()
    stream, out = draw(2, 5, 8), draw(2, 5, 8)
    assert differ(ours.write(stream, out), theirs(out, stream))
    (w_r, w_z, w_g), (u_r, u_z, u_g) = theirs.gru.weight_ih.chunk(3), theirs.gru.weight_hh.chunk(3)
    reset = (out @ w_r.T + stream @ u_r.T).sigmoid()
    update = (out @ w_z.T + stream @ u_z.T + theirs.gru.bias_ih[8:16]).sigmoid()
    # In the paper z is the weight of the new content, in torch that of the old.
    for candidate, weight, expected in (
        (out @ w_g.T + (reset * stream) @ u_g.T, update, ours.write(stream, out)),
        (out @ w_g.T + reset * (stream @ u_g.T), 1 - update, theirs(out, stream)),
    ):
        assert_close((1 - weight) * stream + weight * candidate.tanh(), expected)


def test_gumbel_softmax():
    row = make_decoder("", layers="attn_gumbel_softmax=True", attention={"normalizer": "GumbelSoftmax"})
    theirs, model, _ = build_pair(row)
    plain, _, _ = build_pair(make_decoder(""))
    tokens = draw_tokens()
    assert differ(compute(theirs, tokens), compute(theirs, tokens))
    assert_close(model.decoder(tokens), compute(plain, tokens))


def test_sigmoid_offset():
    row = make_decoder("", layers="attn_sigmoid=True", attention={"normalizer": "Sigmoid"})
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()
    found, trace = model.decoder(tokens, trace=Trace(keeps_maps=True))
    assert differ(found, compute(theirs, tokens))
    visible = torch.arange(1, LENGTH + 1)[:, None]
    for each in trace.maps:
        weights = (each.scores - visible.log()).sigmoid().tril()
        assert_close(each.weights, weights)


def test_residual_scores():
    mods = {"score_mods": ["ResidualScores"]}
    row = make_decoder("", layers="residual_attn=True, alibi_pos_bias=True", attention={"position": "ALiBi", **mods})
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()
    assert differ(model.decoder(tokens), compute(theirs, tokens))
    # Their second layer has its own bias and that of the first: twice the slopes.
    with torch.no_grad():
        model.decoder.stack.sublayers["1_attention"].branch.position.slopes *= 2
    assert_close(model.decoder(tokens), compute(theirs, tokens))


def test_soft_cap_with_a_bias():
    mods = {"position": "ALiBi", "score_mods": [{"class_path": "SoftCap", "init_args": {"cap": 0.5}}]}
    layers = "alibi_pos_bias=True, attn_softclamp_logits=True, attn_logit_softclamp_value=0.5"
    theirs, model, _ = build_pair(make_decoder("", layers=layers, attention=mods))
    tokens = draw_tokens()
    found, trace = model.decoder(tokens, trace=Trace(keeps_maps=True))
    assert differ(found, compute(theirs, tokens))
    place = torch.arange(LENGTH)
    bias = -(place[:, None] - place).abs() * model.decoder.stack.sublayers["0_attention"].branch.position.slopes.view(
        -1, 1, 1
    )
    assert ((trace.maps[0].scores - bias).abs() < 0.5).all()
    assert (trace.maps[0].scores.abs() > 0.5).any()


def test_layer_scale_in_a_sandwich():
    layers = {"placement": "SandwichNorm", "scale": "LayerScale"}
    row = make_decoder("", layers="sandwich_norm=True, use_layerscale=True", decoder=layers)
    theirs, model, _ = build_pair(row)
    tokens = draw_tokens()
    assert differ(model.decoder(tokens), compute(theirs, tokens))
    scales = [each for each in theirs.modules() if type(each).__name__ == "LayerScale"]
    found = []
    with torch.no_grad():
        for gain in (10.0, 1000.0):
            for each in scales:
                each.gamma.copy_(torch.full_like(each.gamma, gain - 1))
            found.append(compute(theirs, tokens))
        # The size of equal gains changes nothing there, but here: with zeros sublayers write nothing.
        assert_close(*found, rtol=0, atol=1e-3)
        for each in model.decoder.stack.sublayers.values():
            each.scale.gain.zero_()
    embedded = model.decoder.token_embedding(tokens)
    bare = model.decoder.head(model.decoder.stack.output_norm(embedded, None))
    assert_close(model.decoder(tokens), bare)


def test_norms_per_head():
    norm = {"qk_norm": {"class_path": "RMSNorm", "init_args": {"eps": 0}}}
    theirs = build(make_decoder("", layers="attn_qk_rmsnorm=True").theirs).eval()
    model = LanguageModel.from_config(make_decoder("", attention=norm).ours)
    gains = (
        theirs.attn_layers.layers[0][1].q_rmsnorm.gamma,
        model.decoder.stack.sublayers["0_attention"].branch.q_norm.gain,
    )
    assert [tuple(each.shape) for each in gains] == [(4, 1, 8), (8,)]


def test_attention_z_loss():
    theirs, model, _ = build_pair(make_decoder("", attention={"z_loss": 0.5}))
    tokens = draw_tokens()
    _, kept = compute(theirs, tokens[:, :-1], return_intermediates=True)
    scores = torch.stack([each.pre_softmax_attn for each in kept.attn_intermediates])
    expected = scores.logsumexp(dim=-1).square().mean()
    plain = model.eval().loss(tokens)
    found = model.train().loss(tokens) - plain
    assert_close(found, 0.5 * expected)
    with in_float64():
        wrapped = x_transformers.AutoregressiveWrapper(theirs, add_attn_z_loss=True).train()
        added = (wrapped(tokens) - plain) / 1e-4
    assert added > 4 * expected
