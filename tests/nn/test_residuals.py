"""Residuals against loops over tokens, streams and features."""

import math
from functools import partial

import pytest
import torch
from catalogue import DIM, VOCAB, decoder
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.residuals.add import Add
from lightning_xt.nn.residuals.gru_gate import GRUGate
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.nn.residuals.manifold_hyper_connection import ManifoldHyperConnection
from lightning_xt.nn.residuals.mean_variance_split import MeanVarianceSplit
from lightning_xt.nn.residuals.orthogonal_update import OrthogonalUpdate
from lightning_xt.nn.residuals.resi_dual import ResiDual
from lightning_xt.nn.residuals.residual_lambdas import ResidualLambdas
from lightning_xt.nn.residuals.scaled_add import ScaledAdd

SHAPE = LayerShape(dim=3)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def product(weight: Tensor, x: list[float]) -> list[float]:
    return [sum(w * f for w, f in zip(row.tolist(), x, strict=True)) for row in weight]


def test_add() -> None:
    add = Add(SHAPE, 0)
    stream = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert add.close(add.write(add.open(stream), 10 * add.read(stream))).tolist() == [[[11.0, 22.0, 33.0]]]


def test_gru_gate_follows_the_equations_of_gtrxl() -> None:
    gate = GRUGate(SHAPE, 0, bias_init=1.5).double()
    stream, out = torch.randn(2, 2, 5, 3, dtype=torch.float64)
    w_r, w_z, w_g = gate.from_out.weight.split(3)
    u_r, u_z = gate.from_stream.weight.split(3)
    u_g = gate.from_reset.weight
    actual = gate.write(stream, out)
    for b in range(2):
        for n in range(5):
            x, y = stream[b, n].tolist(), out[b, n].tolist()
            r = [sigmoid(p + q) for p, q in zip(product(w_r, y), product(u_r, x), strict=True)]
            z = [sigmoid(p + q - 1.5) for p, q in zip(product(w_z, y), product(u_z, x), strict=True)]
            reset = [p * q for p, q in zip(r, x, strict=True)]
            h = [math.tanh(p + q) for p, q in zip(product(w_g, y), product(u_g, reset), strict=True)]
            expected = [(1 - z[f]) * x[f] + z[f] * h[f] for f in range(3)]
            assert actual[b, n].tolist() == pytest.approx(expected)


def test_a_large_bias_closes_the_gru_gate() -> None:
    stream, out = torch.randn(2, 1, 4, 3)
    torch.testing.assert_close(GRUGate(SHAPE, 0, bias_init=50.0).write(stream, out), stream)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_fresh_hyper_connections_are_copies_of_one_plain_residual(index: int) -> None:
    hyper = HyperConnection(SHAPE, index, num_streams=3)
    x, out = torch.randn(2, 2, 5, 3)
    stream = hyper.open(x)
    assert stream.shape == (2, 5, 3, 3)
    torch.testing.assert_close(hyper.read(stream), x)
    written = hyper.write(stream, out)
    for s in range(3):
        torch.testing.assert_close(written[:, :, s], x + out)
    torch.testing.assert_close(hyper.close(written), 3 * (x + out))


def test_a_fresh_model_with_hyper_connections_is_the_plain_model() -> None:
    """A fresh model equals the plain one: the norm after the last layer divides by the number of streams."""
    plain, hyper = decoder().double(), decoder(residual=partial(HyperConnection, num_streams=3)).double()
    torch.nn.init.normal_(plain.head.to_logits.weight)
    hyper.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randint(0, VOCAB, (2, 7))
    torch.testing.assert_close(hyper(tokens), plain(tokens), rtol=1e-4, atol=1e-4)


def test_each_sublayer_first_reads_the_next_stream() -> None:
    for index, expected in enumerate([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]):
        assert HyperConnection(SHAPE, index, num_streams=2).read_static.tolist() == expected
    model = decoder(residual=partial(HyperConnection, num_streams=3))
    first = [sublayer.residual.read_static.argmax().item() for sublayer in model.stack.sublayers.values()]
    assert first == [0, 1, 2, 0]


def test_hyper_connection_follows_the_dynamic_equations() -> None:
    """B = s_b tanh(norm(H) W_b) + B', A_m = s_a tanh(norm(H) W_m) + A_m', A_r = s_a tanh(norm(H) W_r) + A_r'."""
    hyper = HyperConnection(SHAPE, 1, num_streams=2).double()
    with torch.no_grad():
        for parameter in hyper.parameters():
            parameter.add_(torch.randn_like(parameter))
    stream = torch.randn(1, 2, 2, 3, dtype=torch.float64)
    out = torch.randn(1, 2, 3, dtype=torch.float64)
    read, written = hyper.read(stream), hyper.write(stream, out)
    s_a, s_b = hyper.read_scale.item(), hyper.write_scale.item()
    for n in range(2):
        normed = []
        for s in range(2):
            h = stream[0, n, s].tolist()
            mean = sum(h) / 3
            variance = sum((f - mean) ** 2 for f in h) / 3
            normed.append([(f - mean) / math.sqrt(variance + 1e-5) * hyper.gain[k].item() for k, f in enumerate(h)])

        def term(weight: Tensor, s: int, column: int, normed: list[list[float]] = normed) -> float:
            return math.tanh(sum(normed[s][f] * weight[f, column].item() for f in range(3)))

        a_r = [s_a * term(hyper.read_dynamic, s, 0) + hyper.read_static[s].item() for s in range(2)]
        a_m = [[s_a * term(hyper.mix_dynamic, s, t) + hyper.mix_static[s, t].item() for t in range(2)] for s in (0, 1)]
        b = [s_b * term(hyper.write_dynamic, s, 0) + hyper.write_static[s].item() for s in range(2)]
        for f in range(3):
            assert read[0, n, f].item() == pytest.approx(sum(a_r[s] * stream[0, n, s, f].item() for s in range(2)))
            for t in range(2):
                mixed = sum(a_m[s][t] * stream[0, n, s, f].item() for s in range(2))
                assert written[0, n, t, f].item() == pytest.approx(mixed + b[t] * out[0, n, f].item())


def test_the_output_of_a_model_is_the_sum_of_its_streams() -> None:
    hyper = HyperConnection(LayerShape(dim=DIM), 0, num_streams=2)
    assert hyper.close(torch.ones(1, 1, 2, DIM)).tolist() == [[[2.0] * DIM]]


def test_refuses_no_streams() -> None:
    with pytest.raises(ValueError, match="residual: HyperConnection has num_streams 0, which must be at least 1"):
        HyperConnection(SHAPE, 0, num_streams=0)


def test_scaled_add_multiplies_the_stream() -> None:
    stream, out = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[10.0, 10.0, 10.0]]])
    learned = ScaledAdd(SHAPE, 0, constant=2.0)
    with torch.no_grad():
        learned.gain[2] = 5.0
    assert learned.write(stream, out).tolist() == [[[12.0, 14.0, 40.0]]]
    fixed = ScaledAdd(SHAPE, 0, constant=0.5, learned=False)
    assert list(fixed.parameters()) == []
    assert fixed.write(stream, out).tolist() == [[[10.5, 11.0, 11.5]]]


def test_residual_lambdas_change_over_depth() -> None:
    made = [ResidualLambdas(LayerShape(dim=3, layer=layer, depth=3), 0, first=1.4, last=1.0) for layer in range(3)]
    assert [each.factor.item() for each in made] == pytest.approx([1.4, 1.2, 1.0])
    out = made[0].write(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.ones(1, 1, 3))
    assert out[0, 0].tolist() == pytest.approx([2.4, 3.8, 5.2])


def test_orthogonal_update_drops_what_points_along_the_stream() -> None:
    update = OrthogonalUpdate(LayerShape(dim=2), 0, eps=0.0)
    # Each token by itself: (3, 4) of length 5, and 10 + 20 along it.
    stream, out = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[10.0, 0.0], [7.0, 9.0]]])
    along = 30.0 / 25.0
    expected = torch.tensor([[[13.0 - along * 3, 4.0 - along * 4], [1.0, 9.0]]])
    torch.testing.assert_close(update.write(stream, out), expected)


def test_residual_streams_of_resi_dual() -> None:
    """x_ln' = norm(x_ln + f), x_d' = x_d + f, and the output is x_ln + norm(x_d)."""
    dual = ResiDual(LayerShape(dim=2), 0).double()
    torch.nn.init.constant_(dual.gain, 2.0)
    x = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    stream = dual.open(x)
    assert dual.read(stream).tolist() == x.tolist()
    stream = dual.write(stream, torch.tensor([[[-2.0, 3.0]]], dtype=torch.float64))
    # The root mean square of (1, 7) is 5.
    assert dual.read(stream)[0, 0].tolist() == pytest.approx([0.4, 2.8], abs=1e-6)
    assert stream[0, 0, 1].tolist() == [1.0, 7.0]
    assert dual.close(stream)[0, 0].tolist() == pytest.approx([0.6, 4.2], abs=1e-6)


def test_a_fresh_model_with_manifold_hyper_connections_is_the_plain_model() -> None:
    plain, hyper = decoder().double(), decoder(residual=partial(ManifoldHyperConnection, num_streams=3)).double()
    torch.nn.init.normal_(plain.head.to_logits.weight)
    hyper.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randint(0, VOCAB, (2, 7))
    # Parameters are started in float32.
    torch.testing.assert_close(hyper(tokens), plain(tokens), rtol=1e-6, atol=1e-6)


def test_manifold_hyper_connections_follow_their_equations() -> None:
    hyper = ManifoldHyperConnection(SHAPE, 1, num_streams=2, sinkhorn_iterations=50).double()
    with torch.no_grad():
        for parameter in hyper.parameters():
            parameter.add_(torch.randn_like(parameter))
        # Far from the identity, where the iterations converge sooner.
        hyper.mix_static.normal_()
    stream, out = torch.randn(1, 2, 2, 3, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    read, written = hyper.read(stream), hyper.write(stream, out)
    a, b, c = hyper.gains.tolist()
    for n in range(2):
        flat = stream[0, n].flatten().tolist()
        scale = math.sqrt(sum(f * f for f in flat) / 6)
        normed = [f / scale for f in flat]
        pre = [
            a * p + s for p, s in zip(product(hyper.read_dynamic.mT, normed), hyper.read_static.tolist(), strict=True)
        ]
        post = [
            b * p + s
            for p, s in zip(product(hyper.write_dynamic[:, :2].mT, normed), hyper.write_static.tolist(), strict=True)
        ]
        mix = [
            c * p + s
            for p, s in zip(
                product(hyper.write_dynamic[:, 2:].mT, normed), hyper.mix_static.flatten().tolist(), strict=True
            )
        ]
        # A doubly stochastic matrix of two streams has one number: its logit is half the logits' alternating sum.
        stay = sigmoid((mix[0] - mix[1] - mix[2] + mix[3]) / 2)
        for f in range(3):
            x, y = stream[0, n, 0, f].item(), stream[0, n, 1, f].item()
            assert read[0, n, f].item() == pytest.approx(sigmoid(pre[0]) * x + sigmoid(pre[1]) * y, rel=1e-5)
            first = stay * x + (1 - stay) * y + 2 * sigmoid(post[0]) * out[0, n, f].item()
            second = (1 - stay) * x + stay * y + 2 * sigmoid(post[1]) * out[0, n, f].item()
            assert written[0, n, :, f].tolist() == pytest.approx([first, second], rel=1e-5)


def test_each_manifold_hyper_connection_first_reads_mostly_the_next_stream() -> None:
    for index, stream in ((0, 0), (1, 1), (5, 2)):
        weights = ManifoldHyperConnection(SHAPE, index, num_streams=3).read_static.sigmoid()
        assert weights.argmax() == stream
        assert weights.sum().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="ManifoldHyperConnection has num_streams 1, which must be at least 2"):
        ManifoldHyperConnection(SHAPE, 0, num_streams=1)
    with pytest.raises(ValueError, match="ManifoldHyperConnection has sinkhorn_iterations 0, which must be at least 1"):
        ManifoldHyperConnection(SHAPE, 0, sinkhorn_iterations=0)


@pytest.mark.parametrize(
    ("inputs", "groups"),
    [
        (Inputs(), [[0, 1, 2, 3]] * 4),
        (Inputs(hidden_tokens=torch.tensor([[False, True, False, True]])), [[0, 2]] * 4),
        (Inputs(documents=torch.tensor([[5, 5, 5, 7]])), [[0, 1, 2]] * 3 + [[3]]),
        (Inputs(mask=torch.eye(4, dtype=torch.bool).flip(1)[None]), [[3], [2], [1], [0]]),
    ],
    ids=["all", "padding", "documents", "own mask"],
)
def test_mean_variance_split_takes_means_over_the_tokens_that_a_token_sees(
    inputs: Inputs, groups: list[list[int]]
) -> None:
    split = MeanVarianceSplit(LayerShape(dim=3, causal=False), 0, init_alpha=0.5, init_beta=2.0)
    stream, out = torch.randn(2, 1, 4, 3)
    where = Where.from_sequence(4, causal=False, inputs=inputs, lengths=None, device=stream.device)
    written = split.write_rows(stream, out, where)
    for n, group in enumerate(groups):
        x_mean, f_mean = (sum(each[0, j] for j in group) / len(group) for each in (stream, out))
        expected = stream[0, n] + 2 * (out[0, n] - f_mean) + 0.5 * (f_mean - x_mean)
        torch.testing.assert_close(written[0, n], expected)
    if not any(value is not None for value in vars(inputs).values()):
        torch.testing.assert_close(split.write(stream, out), written)


def test_a_decoder_refuses_a_mean_over_later_tokens() -> None:
    with pytest.raises(
        ValueError, match=r"^residual: MeanVarianceSplit averages .* so it serves encoders only; choose"
    ):
        decoder(residual=MeanVarianceSplit)
