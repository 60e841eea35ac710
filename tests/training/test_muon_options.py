"""Options of MuonAdamW against plain formulas in float64, a matrix at a time."""

import copy
from functools import partial
from itertools import product

import pytest
import torch
from lightning.pytorch import Trainer
from matrix_steps import (
    EVERY_OPTION,
    SCALES,
    SHAPES,
    Stacked,
    decoder,
    give_gradients,
    group,
    matrices,
    through_a_file,
    weights,
)

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.optim.build import OptimizerOptions
from lightning_xt.training.optim.muon_adamw import MuonAdamW
from lightning_xt.training.optim.orthogonalizers.base import Orthogonalizer
from lightning_xt.training.optim.orthogonalizers.newton_schulz import NewtonSchulz
from lightning_xt.training.optim.orthogonalizers.polar_express import SAFETY, PolarExpress, compute_quintics
from lightning_xt.training.optim.parameter_groups import parameter_groups

PUBLISHED = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""The paper's coefficients of the first five iterations, without a factor for safety."""
EACH = {
    "PolarExpress": {"orthogonalizer": PolarExpress},
    "row_norm": {"row_norm": True},
    "neuron_beta": {"neuron_beta": 0.9},
    "cautious": {"cautious": True},
    "all": {"orthogonalizer": PolarExpress, "row_norm": True, "neuron_beta": 0.9, "cautious": True},
}
OPTIONS = pytest.mark.parametrize("options", EACH.values(), ids=EACH)


def orthogonalize_by_hand(x, kind):
    """Compute an orthogonalizer from its polynomials of numbers, at the singular values."""
    u, values, v = torch.linalg.svd(x, full_matrices=False)
    values = values / x.norm()
    if kind is NewtonSchulz:
        quintics = 5 * [(3.4445, -4.7750, 2.0315)]
    else:
        values = values / 1.01
        quintics = [(a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in PUBLISHED[:4]] + [PUBLISHED[4]]
    for a, b, c in quintics:
        values = a * values + b * values**3 + c * values**5
    return u @ values.diag() @ v


def step_by_hand(p, gradients, *, lr, decay, scale, orthogonalizer=NewtonSchulz, row_norm, neuron_beta, cautious):
    """Compute the steps of one matrix, its rows and numbers in loops."""
    p, buffer, neurons = p.clone(), torch.zeros_like(p), torch.zeros(len(p), dtype=p.dtype)
    for gradient in gradients:
        buffer = 0.95 * buffer + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * buffer
        if row_norm:
            x = torch.stack([row / row.norm() for row in x])
        x = orthogonalize_by_hand(x, orthogonalizer)
        if neuron_beta is not None:
            norm = x.norm()
            for number, row in enumerate(x):
                neurons[number] = neuron_beta * neurons[number] + (1 - neuron_beta) * row.square().mean()
            x = torch.stack([row / neuron.sqrt() for row, neuron in zip(x, neurons, strict=True)])
            x = norm * x / x.norm()
        x = lr * scale(*p.shape) * x
        for row, column in product(*map(range, p.shape)):
            shrinks = not cautious or x[row, column] * p[row, column] >= 0
            p[row, column] -= x[row, column] + (lr * decay * p[row, column] if shrinks else 0)
    return p


DEFAULTS = {"row_norm": False, "neuron_beta": None, "cautious": False}


@OPTIONS
@pytest.mark.parametrize("rule", SCALES)
def test_each_option_by_hand(options, rule):
    stacked = Stacked().double()
    mine = [*matrices(dtype=torch.float64), stacked.to_qkv.weight]
    starts = [p.detach().clone() for p in mine]
    parts = {f"p{len(mine) - 1}": stacked.stacked_rows["to_qkv"]}
    optimizer = MuonAdamW([group(mine, parts=parts)], lr=0.1, weight_decay=0.2, adjust_lr_fn=rule, **options)
    gradients = []
    for step in range(3):
        give_gradients(mine, step)
        gradients.append([p.grad.clone() for p in mine])
        optimizer.step()
    by_hand = partial(step_by_hand, lr=0.1, decay=0.2, scale=SCALES[rule], **DEFAULTS | options)
    for number, (p, first) in enumerate(zip(mine, starts, strict=True)):
        sizes = (6, 3, 3) if p is stacked.to_qkv.weight else (len(p),)
        own = [each[number].split(sizes) for each in gradients]
        maps = [by_hand(part, [each[place] for each in own]) for place, part in enumerate(first.split(sizes))]
        torch.testing.assert_close(p.detach(), torch.cat(maps), rtol=1e-10, atol=1e-12)


class Polar(Orthogonalizer):
    """Exact orthogonalizer, by a singular value decomposition."""

    def __call__(self, matrices):
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        return u @ v


@pytest.mark.parametrize(
    ("orthogonalizer", "within"), [(Polar, 1e-12), (partial(PolarExpress, steps=8), 1e-4), (PolarExpress, 0.07)]
)
def test_steps_of_neurons_have_the_papers_root_mean_square(orthogonalizer, within):
    mine = matrices(SHAPES[:5], dtype=torch.float64)
    starts = [p.detach().clone() for p in mine]
    options = {"neuron_beta": 0.95, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}
    optimizer = MuonAdamW([group(mine)], lr=1.0, orthogonalizer=orthogonalizer, **options)
    give_gradients(mine, 0)
    optimizer.step()
    for p, start in zip(mine, starts, strict=True):
        step = p.detach() - start
        assert step.square().mean().sqrt().item() == pytest.approx(0.2, rel=within)
        # In the first step all neurons move alike.
        rows = step.square().mean(dim=1)
        torch.testing.assert_close(rows, rows.mean().expand_as(rows))


def test_quintics_are_those_of_the_paper():
    found = [*compute_quintics(8, 1e-3)]
    torch.testing.assert_close(torch.tensor(found[:5]), torch.tensor(PUBLISHED), rtol=0, atol=1e-6)
    assert [round(a, 3) for a, _, _ in found[5:]] == [1.891, 1.875, 1.875]
    assert found[-1] == pytest.approx((15 / 8, -10 / 8, 3 / 8), abs=1e-8)
    *safe, last = PolarExpress().coefficients
    assert [a * SAFETY for a, _, _ in safe] == pytest.approx([a for a, _, _ in PUBLISHED[:4]], rel=1e-12)
    assert last == pytest.approx(PUBLISHED[4], rel=1e-12)


@pytest.mark.parametrize("least", [1e-6, 1e-3, 0.3, 0.999999, 1 - 1e-7])
def test_a_quintic_is_nowhere_farther_from_one_than_at_the_ends(least):
    low, high = least, 1.0
    for a, b, c in compute_quintics(14, least):
        s = torch.linspace(low, high, 1001, dtype=torch.float64)
        low, high = (float(a * each + b * each**3 + c * each**5) for each in (s[0], s[-1]))
        values = a * s + b * s**3 + c * s**5
        assert low - 1e-9 <= values.min() and values.max() <= 2 - low + 1e-9
        high = 2 - low
    assert low > 0.99


def test_singular_values_come_nearer_one_than_by_newton_schulz():
    torch.manual_seed(0)
    random = torch.randn(3, 24, 40, dtype=torch.float64)
    u, _, v = torch.linalg.svd(random, full_matrices=False)
    spread = u @ torch.logspace(0, -2, 24, dtype=torch.float64).diag() @ v
    for batch in (random, spread):
        fixed, five, six = (
            (torch.linalg.svdvals(each(batch)) - 1).abs() for each in (NewtonSchulz(), PolarExpress(), PolarExpress(6))
        )
        assert six.max() < 0.01 < five.max() < 0.13 < 0.25 < fixed.max()
        assert five.mean() < fixed.mean() / 2


def make_steps(model, optimizer, numbers):
    for number in numbers:
        give_gradients(model.parameters(), number)
        optimizer.step()


def build(**options):
    model = decoder()
    return model, MuonAdamW(parameter_groups(model), **options)


@pytest.mark.parametrize("switched", [False, True], ids=["resumed", "switched on"])
@OPTIONS
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(options, switched):
    model, optimizer = build(**({} if switched else options))
    make_steps(model, optimizer, range(2))
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    again, other = build(**options)
    built = OptimizerOptions(other, None)
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    built.apply()
    if switched:
        for each in optimizer.param_groups:
            if each["role"] == "matrix":
                each.update({name: value for name, value in options.items() if name != "orthogonalizer"})
        optimizer.orthogonalizer = options.get("orthogonalizer", NewtonSchulz)()
    for each in ((model, optimizer), (again, other)):
        make_steps(*each, range(2, 4))
    assert torch.equal(weights(model), weights(again))
    mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert all(torch.equal(mine[number][name], theirs[number][name]) for number in mine for name in mine[number])
    plain = decoder()
    plain_optimizer = MuonAdamW(parameter_groups(plain))
    make_steps(plain, plain_optimizer, range(4))
    assert not torch.equal(weights(plain), weights(again))


@OPTIONS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_skipped_step_changes_neither_weights_nor_state(options, dtype):
    model = decoder().to(dtype)
    optimizer = MuonAdamW(parameter_groups(model), **options)
    for skipped in range(3):
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        for p in model.parameters():
            p.grad = torch.full_like(p, torch.nan)
        optimizer.found_inf = torch.ones(())
        optimizer.step()
        after = model.state_dict(), optimizer.state_dict()["state"]
        # The first one makes the state.
        torch.testing.assert_close(after[: 1 + bool(skipped)], before[: 1 + bool(skipped)], rtol=0, atol=0)
        optimizer.found_inf = torch.zeros(())
        make_steps(model, optimizer, [skipped])
    assert weights(model).isfinite().all()


def test_rows_without_a_gradient_stay():
    """Rows without a gradient, such as those of an expert without tokens, get no step and no NaN."""
    for dtype in (torch.float32, torch.float16):
        mine = matrices([(6, 4), (4, 6)], dtype)
        starts = [p.detach().clone() for p in mine]
        optimizer = MuonAdamW([group(mine)], **EACH["all"], weight_decay=0.0)
        for step in range(3):
            give_gradients(mine, step)
            for p in mine:
                p.grad[1] = 0
            optimizer.step()
        for p, start in zip(mine, starts, strict=True):
            assert torch.equal(p[1], start[1])
            assert p.isfinite().all() and not (p[0] == start[0]).any()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"steps": 0}, "steps 0, which must be at least 1 and below 100"),
        ({"least": 0.0}, "least 0.0, which must be above 0 and below 1"),
        ({"least": 1.0}, "least 1.0, which must be above 0 and below 1"),
    ],
)
def test_iterations_out_of_range(options, rule):
    with pytest.raises(ValueError, match=f"optimizer: PolarExpress has {rule}"):
        PolarExpress(**options)


def from_config(orthogonalizer):
    options = {**EVERY_OPTION, "orthogonalizer": orthogonalizer}
    return LanguageModel.from_config(
        {
            "decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}},
            "optimizer": {"class_path": "MuonAdamW", "init_args": options},
            "schedule": None,
        }
    )


def test_a_misspelled_orthogonalizer_is_named():
    with pytest.raises(ValueError, match=r"optimizer.orthogonalizer: unknown Orthogonalizer class 'PolarExpres'; did "):
        from_config("PolarExpres")


def fit(model, steps, resume=None):
    quiet = dict.fromkeys(["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False)
    trainer = Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(model, TextFiles("corpus.txt", seq_len=8, batch_size=4), ckpt_path=resume)
    return trainer


def test_a_checkpoint_rebuilds_and_resumes_it(folder):
    torch.manual_seed(0)
    whole = from_config({"class_path": "PolarExpress", "init_args": {"steps": 4}})
    start = copy.deepcopy(whole.state_dict())
    fit(whole, 4)
    halfway = from_config({"class_path": "PolarExpress", "init_args": {"steps": 4}})
    halfway.load_state_dict(start)
    fit(halfway, 2).save_checkpoint("half.ckpt")
    saved = torch.load("half.ckpt", weights_only=True)
    chosen = saved["hyper_parameters"]["optimizer"]["init_args"]["orthogonalizer"]
    assert chosen == {"class_path": "lightning_xt.PolarExpress", "init_args": {"steps": 4, "least": 1e-3}}
    resumed = LanguageModel.load_from_checkpoint("half.ckpt")
    optimizer = fit(resumed, 4, "half.ckpt").optimizers[0]
    assert optimizer.orthogonalizer.steps == 4
    assert torch.equal(weights(resumed), weights(whole))
