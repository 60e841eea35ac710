"""Output mods by hand."""

import math

import pytest
import torch
from catalogue import attention, decoder

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.activations.silu import SiLU
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.nn.output_mods.head_gate import HeadGate
from lightning_xt.nn.output_mods.head_scale import HeadScale
from lightning_xt.nn.output_mods.orthogonal import Orthogonal
from lightning_xt.nn.output_mods.output_gate import OutputGate
from lightning_xt.nn.output_mods.self_value_removal import SelfValueRemoval
from lightning_xt.nn.output_mods.sparse_head_gate import SparseHeadGate
from lightning_xt.nn.output_mods.value_gate import ValueGate
from lightning_xt.nn.value_mods.laser import Laser

SHAPE = AttentionShape(dim=3, heads=2, kv_heads=1, dim_head=5)


def test_head_scale() -> None:
    scale = HeadScale(SHAPE)
    out, x = torch.ones(1, 2, 3, 5), torch.randn(1, 3, 3)
    assert torch.equal(scale(out, x, None), out)
    with torch.no_grad():
        scale.scale.copy_(torch.tensor([2.0, -3.0]).view(2, 1, 1))
    assert scale(out, x, None)[0, :, 1, 4].tolist() == [2.0, -3.0]


def test_value_gate_is_a_sigmoid_of_the_token_per_feature() -> None:
    gate = ValueGate(SHAPE, bias_init=0.3).double()
    out = torch.randn(2, 2, 7, 5, dtype=torch.float64)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    gated = gate(out, x, None)
    for b in range(2):
        for h in range(2):
            for i in range(7):
                for e in range(5):
                    row = gate.to_gate.weight[5 * h + e]
                    logit = 0.3 + sum((row[f] * x[b, i, f]).item() for f in range(3))
                    expected = out[b, h, i, e].item() / (1 + math.exp(-logit))
                    assert gated[b, h, i, e].item() == pytest.approx(expected)


def test_value_gate_starts_nearly_open() -> None:
    gate = ValueGate(SHAPE)
    assert gate(torch.ones(1, 2, 1, 5), torch.zeros(1, 1, 3), None)[0, 1, 0, 3].item() == pytest.approx(
        0.8807970779778823
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_value_gate_of_two_maps_with_another_activation() -> None:
    gate = ValueGate(SHAPE, bias_init=0.5, rank=1, activation=SiLU)
    with torch.no_grad():
        gate.to_rank.weight.copy_(torch.tensor([[1.0, 0.0, 2.0]]))
        gate.to_gate.weight.copy_(torch.arange(10.0).view(10, 1))
    out = gate(torch.ones(1, 2, 1, 5), torch.tensor([[[0.5, 9.0, -0.5]]]), None)
    # The narrow vector is 0.5 - 1 = -0.5; feature 3 of head 1 is row 8: -4 + 0.5 = -3.5.
    assert out[0, 1, 0, 3].item() == pytest.approx(-3.5 * sigmoid(-3.5))


@pytest.mark.parametrize(("gate", "rank"), [(ValueGate, 0), (OutputGate, 0)])
def test_gates_refuse_a_rank_below_one(gate: type[OutputMod], rank: int) -> None:
    with pytest.raises(ValueError, match=f"output_mods: {gate.__name__} has rank 0, which must be at least 1"):
        gate(SHAPE, rank=rank)


def test_head_gate_is_a_sigmoid_of_the_token_per_head() -> None:
    gate = HeadGate(SHAPE, bias_init=1.0)
    with torch.no_grad():
        gate.to_gate.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
    out = gate(torch.ones(1, 2, 1, 5), torch.tensor([[[3.0, 4.0, 9.0]]]), None)
    assert out[0, :, 0, 2].tolist() == pytest.approx([sigmoid(4), sigmoid(-3)])


def test_sparse_head_gate_reads_the_first_features() -> None:
    gate, out = SparseHeadGate(SHAPE, num_features=2), torch.ones(1, 2, 1, 5)
    x = torch.tensor([[[3.0, 4.0, 9.0]]])
    assert gate(out, x, None)[0, :, 0, 0].tolist() == [0.5, 0.5]
    with torch.no_grad():
        gate.to_gate.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    assert gate(out, x, None)[0, :, 0, 0].tolist() == pytest.approx([sigmoid(3), sigmoid(-4)])
    assert len(SparseHeadGate(SHAPE).to_gate) == 3, "a narrow stream is read whole"
    with pytest.raises(ValueError, match="SparseHeadGate has num_features 0, which must be at least 1"):
        SparseHeadGate(SHAPE, num_features=0)


def test_orthogonal_removes_the_part_along_the_own_value() -> None:
    shape = AttentionShape(dim=3, heads=2, kv_heads=1, dim_head=2)
    out = torch.tensor([[[[3.0, 4.0]], [[1.0, 1.0]]]])
    own = torch.tensor([[[[0.0, 2.0]]]])
    assert Orthogonal(shape)(out, torch.zeros(1, 1, 3), own).flatten().tolist() == [3.0, 0.0, 1.0, 0.0]
    removal = SelfValueRemoval(shape)
    assert torch.equal(removal(out, torch.zeros(1, 1, 3), own), out)
    with torch.no_grad():
        removal.fraction.copy_(torch.atanh(torch.tensor([0.25, 0.5])).view(2, 1, 1))
    found = removal(out, torch.zeros(1, 1, 3), own).flatten().tolist()
    assert found == pytest.approx([3.0, 3.0, 1.0, 0.5])


def test_output_gate_adds_the_logits_of_token_and_output() -> None:
    gate = OutputGate(AttentionShape(dim=2, heads=2, kv_heads=2, dim_head=1), rank=1)
    with torch.no_grad():
        for each in (gate.out_down, gate.out_up):
            each.fill_(1.0)
        gate.token_down.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        gate.token_up.fill_(2.0)
        gate.to_head_gate.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
    out = gate(torch.tensor([[[[0.5]], [[-3.0]]]]), torch.tensor([[[2.0, -1.0]]]), None).flatten().tolist()
    silu = [x * sigmoid(x) for x in (0.5, -3.0, 2.0, -1.0)]
    expected = [
        0.5 * sigmoid(silu[0] + 2 * silu[2]) * sigmoid(0.5 - 3.0),
        -3.0 * sigmoid(silu[1] + 2 * silu[3]) * sigmoid(3.0),
    ]
    assert out == pytest.approx(expected)


@pytest.mark.parametrize("mod", [Orthogonal, SelfValueRemoval])
def test_values_of_another_scale_are_not_compared(mod: type) -> None:
    rule = rf"^output_mods: {mod.__name__} compares gathered values with .*, but value_mods: Laser changes the scale"
    with pytest.raises(ValueError, match=rule):
        decoder(attention=attention(value_mods=[Laser], output_mods=[mod]))


@pytest.mark.parametrize("mods", [[Orthogonal, SelfValueRemoval], [SelfValueRemoval, Orthogonal]])
def test_nothing_is_left_to_remove_twice(mods: list[type]) -> None:
    message = f"output_mods: {mods[0].__name__} and {mods[1].__name__} both remove what was gathered along"
    with pytest.raises(ValueError, match=message):
        decoder(attention=attention(output_mods=mods))
