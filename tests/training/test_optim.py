from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.training.callbacks.disk_space_check import _estimate_checkpoint_bytes
from lightning_xt.training.optim.build import OptimizerOptions, build_optimizer
from lightning_xt.training.optim.muon_adamw import MuonAdamW
from lightning_xt.training.optim.parameter_groups import parameter_groups
from lightning_xt.training.optim.soap_adamw import SOAPAdamW


@pytest.mark.parametrize("options", [{}, {"head": TiedHead}, {"norm": LayerNorm}])
def test_every_parameter_is_in_one_group(options):
    model = Decoder(11, dim=16, depth=2, **options)
    groups = parameter_groups(model)
    grouped = [id(parameter) for group in groups for _, parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert len(grouped) == len(set(grouped))


def test_only_matrices_decay():
    groups = {group["role"]: group for group in parameter_groups(Decoder(11, dim=16, depth=1, norm=LayerNorm))}
    assert list(groups) == ["matrix", "head", "embedding", "other"]
    assert "weight_decay" not in groups["matrix"]
    assert "weight_decay" not in groups["head"]
    assert groups["embedding"]["weight_decay"] == groups["other"]["weight_decay"] == 0.0
    assert [name for name, _ in groups["embedding"]["params"]] == ["token_embedding.weight"]
    assert all(parameter.dim() < 2 for _, parameter in groups["other"]["params"])
    assert [name for name, _ in groups["head"]["params"]] == ["head.to_logits.weight"]
    assert all(parameter.dim() == 2 for _, parameter in groups["matrix"]["params"])


def test_a_tied_head_does_not_decay():
    groups = parameter_groups(Decoder(11, dim=16, depth=1, head=TiedHead))
    decaying = [name for group in groups if "weight_decay" not in group for name, _ in group["params"]]
    assert not any("head" in name or "embedding" in name for name in decaying)


def test_optimizers_take_the_groups_and_keep_the_names():
    optimizer = torch.optim.AdamW(parameter_groups(Decoder(11, dim=16, depth=1)), weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3, 0.0, 0.0]
    assert optimizer.param_groups[2]["param_names"] == ["token_embedding.weight"]


def test_frozen_parameters_are_omitted():
    model = Decoder(11, dim=16, depth=1)
    model.token_embedding.requires_grad_(False)
    assert {group["role"] for group in parameter_groups(model)} == {"matrix", "head", "other"}


def build(factory, model):
    return build_optimizer(factory, parameter_groups(model), factory.__name__)


def test_an_optimizer_names_what_it_refuses():
    with pytest.raises(
        ValueError,
        match=r"optimizer: Muon cannot be built for this model: Muon only .*; it refuses 3 of the 9 parameters, "
        r"stack\S+ \(16,\), stack\S+ \(16,\), stack\S+ \(16,\); choose another, such as --model.optimizer MuonAdamW$",
    ):
        build(torch.optim.Muon, Decoder(11, dim=16, depth=1))


def test_an_optimizer_that_refuses_all_says_why():
    with pytest.raises(ValueError, match=r"optimizer: LBFGS cannot be built for this model: .*; change its options or"):
        build(torch.optim.LBFGS, Decoder(11, dim=16, depth=1))


def test_an_optimizer_of_sparse_gradients_is_refused_before_it_steps():
    with pytest.raises(ValueError, match=r"SparseAdam takes only sparse gradients, and those of stack\S+ and all"):
        build(torch.optim.SparseAdam, Decoder(11, dim=16, depth=1))


def make_step(factory, groups):
    model = Decoder(11, dim=16, depth=1)
    optimizer = factory(groups(model))
    model(torch.zeros(1, 3, dtype=torch.long)).square().sum().backward()
    optimizer.step()
    return optimizer


def test_the_state_of_another_optimizer_is_refused():
    state = make_step(torch.optim.AdamW, parameter_groups).state_dict()
    with pytest.raises(ValueError, match="not this command's MuonAdamW: it has amsgrad and no adjust_lr_fn; resume"):
        build(MuonAdamW, Decoder(11, dim=16, depth=1)).load_state_dict(state)
    state = make_step(MuonAdamW, parameter_groups).state_dict()
    with pytest.raises(ValueError, match="not this command's AdamW: it has adjust_lr_fn and no amsgrad; resume"):
        build(torch.optim.AdamW, Decoder(11, dim=16, depth=1)).load_state_dict(state)


def test_the_state_of_another_model_is_refused():
    state = make_step(torch.optim.AdamW, parameter_groups).state_dict()
    with pytest.raises(ValueError, match=r"optimizer has other parameters than this command's model, 1 in all, such"):
        build(torch.optim.AdamW, Decoder(11, dim=16, depth=1, head=TiedHead)).load_state_dict(state)


def test_state_in_other_groups_is_taken_up():
    """State in other groups is taken over, as earlier versions without a role of heads wrote it."""

    def merge(model):
        matrix, head, embedding, other = parameter_groups(model)
        params = sorted(matrix["params"] + head["params"], key=lambda pair: pair[0])
        return [{"params": params, "role": "matrix"}, embedding, other]

    before = make_step(torch.optim.AdamW, merge)
    after = build(torch.optim.AdamW, Decoder(11, dim=16, depth=1))
    after.load_state_dict(before.state_dict())
    assert [group["role"] for group in after.param_groups] == ["matrix", "head", "embedding", "other"]
    found = {}
    for optimizer in (before, after):
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                found.setdefault(name, []).append(optimizer.state[parameter]["exp_avg"])
    assert len(found) == 9
    assert all(torch.equal(mine, theirs) for mine, theirs in found.values())


class Distance(torch.optim.SGD):
    """Optimizer that keeps an estimate in its groups, as Prodigy does."""

    def __init__(self, params, lr=0.1, growth=2.0):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group.update(growth=growth, d=1.0)

    def step(self, closure=None):
        for group in self.param_groups:
            group["d"] *= group["growth"]
        return super().step(closure)


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_resume_has_the_options_of_the_command_and_the_state_of_the_checkpoint(scheduled, caplog):
    caplog.set_level("INFO")
    saved = make_step(Distance, parameter_groups).state_dict()
    assert {group["d"] for group in saved["param_groups"]} == {2.0}
    for rate, said in ((0.1, False), (0.2, True)):
        caplog.clear()
        optimizer = build(lambda groups, rate=rate: Distance(groups, rate, 3.0), Decoder(11, dim=16, depth=1))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0) if scheduled else None
        options = OptimizerOptions(optimizer, scheduler)
        optimizer.load_state_dict(saved)
        options.apply()
        assert {(group["d"], group["lr"], group["growth"]) for group in optimizer.param_groups} == {(2.0, rate, 3.0)}
        assert ("the learning rate" in caplog.text) == said
        assert not said or ("is 0.2" in caplog.text and "0.1 in the checkpoint" in caplog.text)


def test_a_resume_has_the_options_of_both_optimizers_of_muon():
    saved = make_step(MuonAdamW, parameter_groups).state_dict()
    optimizer = build(lambda groups: MuonAdamW(groups, adamw_betas=(0.5, 0.6)), Decoder(11, dim=16, depth=1))
    options = OptimizerOptions(optimizer, None)
    optimizer.load_state_dict(saved)
    options.apply()
    assert {group["betas"] for group in optimizer.param_groups if group["role"] != "matrix"} == {(0.5, 0.6)}


@pytest.mark.parametrize(
    "factory",
    [
        MuonAdamW,
        partial(MuonAdamW, neuron_beta=0.9),
        SOAPAdamW,
        # The sides of 64 keep no eigenbases.
        partial(SOAPAdamW, max_dim=16),
    ],
)
def test_the_size_of_a_state_is_known_before_the_first_step(factory):
    model = Decoder(11, dim=16, depth=1, attention=partial(Attention, heads=2, kv_heads=1)).bfloat16()
    optimizer = factory(parameter_groups(model))
    expected = optimizer.measure_state()
    weights = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
    trainer = SimpleNamespace(callbacks=[], optimizers=[optimizer])
    assert _estimate_checkpoint_bytes(trainer, model) == weights + expected
    for seed in range(2):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    kept = [each for state in optimizer.state.values() for each in state.values() if torch.is_tensor(each)]
    # Without the counts of steps.
    assert expected == sum(each.numel() * each.element_size() for each in kept if each.dim())
