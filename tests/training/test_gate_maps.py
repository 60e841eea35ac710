"""Linear maps that make a few numbers for each token, and no features, are declared by their parts."""

from functools import partial

from catalogue import DIM, HEADS, PLACED, decoder
from torch import nn

from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.adapters.lora import LoRA
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.heads.mixture_of_softmaxes import MixtureOfSoftmaxes
from lightning_xt.nn.output_mods.head_gate import HeadGate
from lightning_xt.training.optim.parameter_groups import parameter_groups

OPTIONS = {name: options for name, (variant, options) in PLACED.items() if not getattr(variant, "sees_ahead", False)}

FEATURES = ("to_rotated_key",)
"""Maps to features, of which the small heads of the tests have few."""


def list_gates(model):
    """List the declared maps of a model, by name."""
    return {
        f"{path}.{name}": getattr(part, name)
        for path, part in model.named_modules()
        for name in getattr(part, "gate_maps", ())
        if getattr(part, name) is not None
    }


def test_gates_are_declared_and_features_are_not():
    """Maps to at most as many numbers as there are heads make gates, of which a wider model has as many."""
    declaring = set()
    for slot, options in OPTIONS.items():
        model = decoder(**{**options, "dim": 2 * DIM})
        gates = list_gates(model)
        assert all(isinstance(each, nn.Linear) for each in gates.values()), slot
        linears = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
        few = {name for name, each in linears.items() if each.out_features <= HEADS and not name.endswith(FEATURES)}
        assert few <= gates.keys(), f"{slot}: name {few - gates.keys()} in gate_maps"
        if gates:
            declaring.add(slot.partition("=")[2])
            sizes = {name: each.out_features for name, each in list_gates(decoder(**options)).items()}
            assert sizes == {name: each.out_features for name, each in gates.items()}, slot
    assert {"HeadGate", "MixtureOfExperts", "GatedDeltaNet", "Mamba2", "ValueResidual", "MUDD"} <= declaring


def small(**options):
    return Decoder(11, dim=16, depth=1, attention=partial(Attention, heads=2, output_mods=[HeadGate]), **options)


def test_gates_are_not_stepped_as_matrices_and_do_not_decay():
    groups = {group["role"]: group for group in parameter_groups(small(head=MixtureOfSoftmaxes))}
    names = {role: [name.rpartition("s.0.")[2] for name, _ in group["params"]] for role, group in groups.items()}
    assert {"to_gate.weight", "gate_bias", "head.to_prior.weight"} <= {*names["other"]}
    assert groups["other"]["weight_decay"] == 0
    assert names["head"] == ["head.head.to_logits.weight", "head.to_vectors.weight"]


def test_the_narrow_matrices_at_a_gate_are_matrices():
    model = small()
    LoRA(rank=2, targets=["*.to_gate"]).adapt(model)
    (group,) = parameter_groups(model)
    assert group["role"] == "matrix"
    assert [name.rpartition(".")[2] for name, _ in group["params"]] == ["lora_A", "lora_B"]
