import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from matrix_steps import (
    SCALES,
    Calls,
    Stacked,
    decoder,
    give_gradients,
    group,
    matrices,
    take_step,
    through_a_file,
    weights,
)
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.optim.muon_adamw import MuonAdamW
from lightning_xt.training.optim.orthogonalizers.base import choose_product_type
from lightning_xt.training.optim.orthogonalizers.newton_schulz import NewtonSchulz
from lightning_xt.training.optim.parameter_groups import parameter_groups


def compute_by_hand(p, gradients, *, lr, momentum, nesterov, decay, steps, scale):
    """Compute Muon in plain formulas, a matrix at a time."""
    p, buffer = p.detach().clone(), torch.zeros_like(p)
    for gradient in gradients:
        buffer = momentum * buffer + (1 - momentum) * gradient
        x = (1 - momentum) * gradient + momentum * buffer if nesterov else buffer
        x = x / x.norm()
        for _ in range(steps):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        p = p - lr * decay * p - lr * scale(*p.shape) * x
    return p


@pytest.mark.parametrize("rule", SCALES)
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_of_matrices_by_hand(rule, nesterov):
    mine = matrices(dtype=torch.float64)
    start = [p.detach().clone() for p in mine]
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov}
    optimizer = MuonAdamW(
        [group(mine)], **options, orthogonalizer=partial(NewtonSchulz, steps=3), weight_decay=0.2, adjust_lr_fn=rule
    )
    gradients = []
    for step in range(3):
        give_gradients(mine, step)
        gradients.append([p.grad.clone() for p in mine])
        optimizer.step()
    for number, (p, first) in enumerate(zip(mine, start, strict=True)):
        own = [each[number] for each in gradients]
        expected = compute_by_hand(first, own, **options, decay=0.2, steps=3, scale=SCALES[rule])
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", SCALES)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_same_steps_as_torch(rule, nesterov, decay, monkeypatch):
    # Torch's Muon orthogonalizes in bfloat16 on any machine.
    monkeypatch.setattr("lightning_xt.training.optim.muon_adamw.choose_product_type", lambda _: torch.bfloat16)
    mine, theirs = matrices(), matrices()
    options = {"lr": 0.02, "momentum": 0.95, "nesterov": nesterov, "weight_decay": decay, "adjust_lr_fn": rule}
    optimizers = MuonAdamW([group(mine)], **options), Muon(theirs, **options)
    start = [p.detach().clone() for p in mine]
    for step in range(4):
        for parameters, optimizer in zip((mine, theirs), optimizers, strict=True):
            give_gradients(parameters, step)
            optimizer.step()
    for p, other, first in zip(mine, theirs, start, strict=True):
        # Relative to the update; bfloat16 has three digits.
        assert (p - other).norm() <= 0.02 * (other - first).norm()


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    for batch in (torch.randn(3, 5, 17), torch.randn(2, 8, 8)):
        x = batch.double()
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        result = NewtonSchulz(8)(x)
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.6 and values.max() < 1.3
        # The singular vectors are kept: in their terms the result is diagonal.
        core = u.mT @ result @ v.mT
        torch.testing.assert_close(core, torch.diag_embed(torch.diagonal(core, dim1=1, dim2=2)), rtol=0, atol=1e-9)


def test_a_gradient_of_zeros_moves_nothing():
    p = nn.Parameter(torch.ones(3, 5))
    p.grad = torch.zeros(3, 5)
    MuonAdamW([group([p])], weight_decay=0.0).step()
    assert torch.equal(p, torch.ones(3, 5))


def test_doubles_stay_doubles(monkeypatch):
    assert choose_product_type(torch.ones(1, dtype=torch.float64)) == torch.float64
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert choose_product_type(torch.ones(1)) == torch.float32
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert choose_product_type(torch.ones(1)) == torch.bfloat16


def test_the_rest_steps_as_adamw_bit_for_bit():
    shapes = {"head": [(11, 5)], "embedding": [(11, 5), (3, 5)], "other": [(5,), (), (2, 3, 4), (2, 3, 4, 5)]}
    lrs = {"head": 1e-3, "embedding": 0.3, "other": 0.02}
    mine, theirs = ({role: matrices(each) for role, each in shapes.items()} for _ in range(2))
    optimizer = MuonAdamW(
        [group(each, role, **({} if role == "head" else {"weight_decay": 0.0})) for role, each in mine.items()],
        adamw_lr=0.02, adamw_betas=(0.8, 0.9), adamw_eps=1e-6, adamw_weight_decay=0.1, embedding_lr=0.3, head_lr=1e-3,
    )  # fmt: skip
    groups = [
        {"params": each, "lr": lrs[role], "weight_decay": 0.1 if role == "head" else 0.0}
        for role, each in theirs.items()
    ]
    reference = AdamW(groups, betas=(0.8, 0.9), eps=1e-6, fused=True)
    for step in range(3):
        for parameters, each in ((mine, optimizer), (theirs, reference)):
            give_gradients([p for ps in parameters.values() for p in ps], step)
            each.step()
    for role in shapes:
        assert all(torch.equal(p, other) for p, other in zip(mine[role], theirs[role], strict=True))


def test_parameters_without_a_gradient_stay():
    still, moved = matrices([(3, 5), (3, 5)])
    norm = nn.Parameter(torch.ones(5))
    optimizer = MuonAdamW([group([still, moved]), group([norm], "other")])
    before = still.detach().clone()
    moved.grad = torch.ones(3, 5)
    optimizer.step()
    assert torch.equal(still, before)
    assert not torch.equal(moved, before)
    assert torch.equal(norm, torch.ones(5))
    assert set(optimizer.state) == {moved}
    moved.grad = None
    optimizer.step()


@pytest.mark.parametrize("rule", SCALES)
def test_maps_in_one_weight_are_orthogonalised_apart(rule):
    together = Stacked().double()
    apart = [nn.Parameter(part.clone()) for part in together.to_qkv.weight.detach().split((6, 3, 3))]
    options = {"adjust_lr_fn": rule, "lr": 0.1}
    one, other = MuonAdamW(parameter_groups(together), **options), MuonAdamW([group(apart)], **options)
    for step in range(3):
        give_gradients([together.to_qkv.weight], step)
        for part, gradient in zip(apart, together.to_qkv.weight.grad.split((6, 3, 3)), strict=True):
            part.grad = gradient.clone()
        one.step()
        other.step()
    assert torch.allclose(together.to_qkv.weight, torch.cat(list(apart)), rtol=0, atol=1e-13)
    start = Stacked().double()
    start.stacked_rows = {}
    assert "parts" not in parameter_groups(start)[0]


def test_stacked_rows_that_do_not_add_up():
    model = Stacked()
    model.stacked_rows = {"to_qkv": (6, 3)}
    with pytest.raises(ValueError, match=r"Stacked\.stacked_rows says that to_qkv holds maps of \(6, 3\) rows, but"):
        parameter_groups(model)


def test_a_saved_state_resumes_bit_for_bit():
    model = decoder()
    optimizer = MuonAdamW(parameter_groups(model))
    scheduler = LambdaLR(optimizer, lambda number: 1 / (1 + number))
    for number in range(3):
        take_step(model, optimizer, number)
        scheduler.step()
    saved = through_a_file(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    )
    again = decoder()
    other = MuonAdamW(parameter_groups(again), lr=1.0, adamw_lr=1.0)
    scheduler_of_other = LambdaLR(other, lambda number: 1 / (1 + number))
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    scheduler_of_other.load_state_dict(saved["scheduler"])
    for number in range(3, 6):
        take_step(model, optimizer, number)
        scheduler.step()
        take_step(again, other, number)
        scheduler_of_other.step()
    assert torch.equal(weights(model), weights(again))
    assert [each["lr"] for each in other.param_groups] == pytest.approx([0.02 / 7, *[3e-3 / 7] * 3])
    mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert all(torch.equal(mine[number][name], theirs[number][name]) for number in mine for name in mine[number])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_steps_by_itself(duplicate):
    model = decoder()
    optimizer = MuonAdamW(parameter_groups(model))
    take_step(model, optimizer, 0)
    again, other = duplicate((model, optimizer))
    before = weights(model)
    take_step(again, other, 1)
    assert torch.equal(weights(model), before)
    take_step(model, optimizer, 1)
    assert torch.equal(weights(model), weights(again))


def test_groups_can_be_added():
    first, second, norm = *matrices([(3, 5), (3, 5)]), nn.Parameter(torch.ones(5))
    optimizer = MuonAdamW([group([first])], lr=0.5, adamw_lr=0.25)
    optimizer.add_param_group(group([second], lr=0.1))
    optimizer.add_param_group(group([norm], "other"))
    assert [each["lr"] for each in optimizer.param_groups] == [0.5, 0.1, 0.25]
    give_gradients([first, second, norm], 0)
    optimizer.step()
    assert not torch.equal(norm, torch.ones(5))
    assert set(optimizer.state) == {first, second, norm}


def test_a_closure_computes_the_gradients():
    p = nn.Parameter(torch.ones(3, 5))
    optimizer = MuonAdamW([group([p])])

    def closure():
        loss = p.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 15.0
    assert p.grad is not None


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"momentum": 1.0}, "momentum 1.0, which must be at least 0 and below 1"),
        ({"neuron_beta": 1.0}, "neuron_beta 1.0, which must be at least 0 and below 1"),
        ({"lr": -1.0}, "lr -1.0, which must be at least 0"),
        ({"adamw_lr": -1.0}, "adamw_lr -1.0, which"),
        ({"embedding_lr": -1.0}, "embedding_lr -1.0, which"),
        ({"head_lr": -1.0}, "head_lr -1.0, which"),
        ({"weight_decay": -1.0}, "weight_decay -1.0, which"),
        ({"adamw_weight_decay": -1.0}, "adamw_weight_decay -1.0, which"),
        ({"adamw_eps": -1.0}, "adamw_eps -1.0, which"),
        ({"adamw_betas": (0.9, 1.0)}, "the second of adamw_betas 1.0, which must be at least 0 and below 1"),
        ({"adjust_lr_fn": "none"}, "adjust_lr_fn 'none', which must be original or match_rms_adamw"),
    ],
)
def test_options_out_of_range(options, rule):
    with pytest.raises(ValueError, match=f"optimizer: MuonAdamW has {rule}"):
        MuonAdamW([group(matrices())], **options)


def test_iterations_out_of_range():
    with pytest.raises(ValueError, match="NewtonSchulz has steps 0, which must be at least 1 and below 100"):
        MuonAdamW([group(matrices())], orthogonalizer=partial(NewtonSchulz, steps=0))


def test_parameters_it_cannot_take_are_named():
    with pytest.raises(ValueError, match=r"2 of the parameters .* are not, such as p1 \(5,\); give those the role"):
        MuonAdamW([group([*matrices([(3, 5)]), nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 3, 4))])])
    with pytest.raises(ValueError, match=r"parameters of the role None, .* give it parameter_groups\(model\)"):
        MuonAdamW(nn.Linear(3, 5).parameters())


CONFIG = {
    "decoder": {"dim": 8, "depth": 2, "attention": {"heads": 2}},
    "optimizer": {"class_path": "MuonAdamW", "init_args": {"lr": 0.05}},
    "schedule": {"init_args": {"warmup_steps": 2}},
}


def train(processes=1, accumulate=1, batch_size=4):
    torch.manual_seed(0)
    model = LanguageModel.from_config(CONFIG).double()
    trainer = Trainer(
        max_steps=5,
        max_epochs=-1,
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_fork",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.1,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        trainer.fit(model, TextFiles("corpus.txt", seq_len=8, batch_size=batch_size))
    return weights(model)


def test_processes_and_accumulated_batches_change_nothing(folder):
    whole, accumulated = train(), train(accumulate=2, batch_size=2)
    torch.testing.assert_close(accumulated, whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(train(processes=2, batch_size=2), whole, rtol=0, atol=1e-9)


def test_a_step_reads_no_value_and_multiplies_by_shape():
    model = decoder()
    optimizer = MuonAdamW(parameter_groups(model))
    for _ in range(2):
        give_gradients(model.parameters(), 0)
        with Calls() as calls:
            optimizer.step()
    # Reading a value would make the host wait for the device.
    assert not {"_local_scalar_dense", "item", "is_nonzero", "equal"} & {*calls.names}
    # Queries, keys and values, (48, 16) together, are three maps of (16, 16).
    shapes = {tuple(sorted(p.shape)) for p in optimizer.param_groups[0]["params"]}
    assert shapes == {(16, 16), (16, 48), (16, 64)}
    assert calls.names.count("bmm") == 5 * 2
    assert calls.names.count("baddbmm") == 2 * 5 * 2
