"""Dropout and weight decay that change over a run."""

import copy
from functools import partial

import pytest
import torch
from averaged_runs import Saving, build, fit, flat
from lightning.pytorch import Callback
from processes_fits import SavesHalfway, assert_close
from processes_fits import fit as fit_in_processes
from processes_run import run_in_processes
from torch import nn

from lightning_xt.training.callbacks.dropout_schedule import DropoutSchedule
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.callbacks.weight_decay_schedule import WeightDecaySchedule
from lightning_xt.training.scheduled_dropout import ScheduledDropout

LOGGED = {"log_every_n_steps": 1, "val_check_interval": 100}
PHASES = [
    ({"start": 0.0, "end": 1.0}, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ({"start": 1.0, "end": 0.0, "length": 0.5}, [1, 0.5, 0, 0, 0, 0]),
    ({"start": 0.0, "end": 1.0, "begin": 2, "length": 0}, [0, 0, 1, 1, 1, 1]),
    ({"start": 0.5, "end": 1.5, "begin": 0.5, "length": 1}, [0.5, 0.5, 0.5, 1.5, 1.5, 1.5]),
    ({"start": 2.0, "end": 1.0, "begin": 3}, [2, 2, 2, 2, 1.5, 1]),
]


class Recording(Callback):
    """Callback that records the logged values, and the weight decay of each group, at each optimizer step."""

    def __init__(self):
        self.logged, self.decays, self.modes = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.decays.append([group["weight_decay"] for group in optimizer.param_groups])

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.modes.append({float(m.fraction) for m in pl_module.modules() if isinstance(m, ScheduledDropout)})


@pytest.mark.parametrize(("options", "fractions"), PHASES)
def test_the_dropout_of_each_step(folder, options, fractions):
    seen, model = Recording(), build()
    before = [type(each) for each in model.modules()]
    fit(model, DropoutSchedule(**options), seen, accumulate_grad_batches=2, **LOGGED)
    assert [each["optim/dropout"] for each in seen.logged] == pytest.approx([0.3 * each for each in fractions])
    # Two batches a step; every dropout of the network follows.
    assert [pytest.approx(each) for (each,) in seen.modes] == [each for each in fractions for _ in range(2)]
    assert [type(each) for each in model.modules()] == before and nn.Dropout in before


@pytest.mark.parametrize("optimizer", ["AdamW", "MuonAdamW"])
@pytest.mark.parametrize(("options", "fractions"), PHASES[:3])
def test_the_weight_decay_of_each_step(folder, optimizer, options, fractions):
    seen, plain = Recording(), Recording()
    fit(build(optimizer), plain, **LOGGED)
    fit(build(optimizer), WeightDecaySchedule(**options), seen, **LOGGED)
    built = plain.decays[0]
    assert 0.0 in built and any(built)
    assert seen.decays == [pytest.approx([fraction * each for each in built]) for fraction in fractions]
    largest = next(filter(None, built))
    assert [each["optim/weight_decay"] for each in seen.logged] == pytest.approx([largest * f for f in fractions])


def test_nothing_of_it_is_nothing(folder):
    models = [build(), build(dropout=0.0)]
    fit(models[0], DropoutSchedule(0.0, 0.0))
    fit(models[1])
    assert torch.equal(*(flat(model.state_dict()) for model in models))
    still = {"class_path": "AdamW", "init_args": {"lr": 1e-3, "weight_decay": 0.0}}
    decayed = copy.deepcopy(still)
    decayed["init_args"]["weight_decay"] = 0.5
    models = [build(decayed), build(still), build(decayed), build(decayed)]
    for model, callbacks in zip(
        models, ([WeightDecaySchedule(0.0, 0.0)], [], [WeightDecaySchedule(1.0, 1.0)], []), strict=True
    ):
        fit(model, *callbacks)
    none, without, all_of_it, plain = (flat(model.state_dict()) for model in models)
    assert torch.equal(none, without) and torch.equal(all_of_it, plain) and not torch.equal(none, plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_scheduled_dropout_drops_the_fraction(dtype):
    torch.manual_seed(0)
    dropout = ScheduledDropout(0.5, torch.tensor(0.5))
    x = torch.full((100, 1000), 3.0, dtype=dtype, requires_grad=True)
    out = dropout(x)
    assert out.dtype == dtype
    dropped = out == 0
    # Five standard deviations.
    assert abs(float(dropped.double().mean()) - 0.25) < 5 * (0.25 * 0.75 / 1e5) ** 0.5
    torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], 4.0), rtol=1e-6, atol=0)
    out.sum().backward()
    torch.testing.assert_close(x.grad, (~dropped).to(dtype) * 4 / 3, rtol=1e-6 if dtype.itemsize > 2 else 1e-2, atol=0)
    assert not torch.equal(dropped, dropout(x) == 0)
    dropout.fraction.zero_()
    assert torch.equal(dropout(x), x)
    dropout.fraction.fill_(1.0)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("kind", [DropoutSchedule, WeightDecaySchedule])
def test_a_run_resumes_exactly(folder, kind):
    whole, again, plain = build(), build(), build()
    fit(whole, kind(), ExponentialAverage(0.7), Saving())
    fit(again, kind(), ExponentialAverage(0.7), ckpt_path="training.ckpt")
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))
    fit(plain, ExponentialAverage(0.7))
    assert not torch.equal(flat(whole.state_dict()), flat(plain.state_dict()))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"start": -0.1}, "start -0.1, which must be at least 0"),
        ({"end": -1}, "end -1, which must be at least 0"),
        ({"begin": 1.5}, "begin 1.5, which must be as a fraction of the run from 0.0 to 1.0"),
        ({"begin": -1}, "begin -1, which must be at least 0"),
        ({"length": 7}, "length 7, which must be from 0 to 6 optimizer steps"),
        ({"begin": 4, "length": 0.5}, "begin 4 and length 0.5, which end after 7 steps, but the run has 6; lower one"),
    ],
)
def test_options_out_of_range(folder, options, rule):
    with pytest.raises(ValueError, match=rf"^trainer\.callbacks: WeightDecaySchedule has {rule}"):
        fit(build(), WeightDecaySchedule(**options))


def test_runs_that_cannot_be_scheduled(folder):
    with pytest.raises(ValueError, match="DropoutSchedule finds no dropout to schedule; set one, such as --model"):
        fit(build(dropout=0.0), DropoutSchedule())
    with pytest.raises(ValueError, match=r"DropoutSchedule takes 4 of a dropout of 0\.3, which must be below 1; lower"):
        fit(build(), DropoutSchedule(0.0, 4.0))
    model = build()
    with pytest.raises(
        ValueError, match="DropoutSchedule is given twice, but a model has one schedule of its dropout;"
    ):
        fit(model, DropoutSchedule(), DropoutSchedule())
    # It has its dropouts again, and trains.
    assert not any(isinstance(each, ScheduledDropout) for each in model.modules())
    fit(model, DropoutSchedule(), steps=3)
    with pytest.raises(ValueError, match=r"WeightDecaySchedule finds no weight decay in AdamW; set one, such as --mod"):
        fit(build({"class_path": "AdamW", "init_args": {"weight_decay": 0.0}}), WeightDecaySchedule())
    with pytest.raises(ValueError, match=r"max_steps is -1, but trainer\.callbacks: DropoutSchedule needs the length"):
        fit(build(schedule=None), DropoutSchedule(), steps=-1)


@pytest.mark.slow
# The command line does this too.
@pytest.mark.filterwarnings("ignore:.*FSDP2-wrapped module .* returned a view tensor:UserWarning")
@pytest.mark.parametrize("place", ["ddp", "FSDP2"])
def test_two_processes_decay_as_one(folder, place):
    one = fit_in_processes(folder, "one", callbacks=[WeightDecaySchedule()])
    file = folder / "halfway.ckpt"
    two = fit_in_processes(folder, place, callbacks=[WeightDecaySchedule(), SavesHalfway(file)])
    assert_close(two.weights, one.weights)
    again = fit_in_processes(folder, place, callbacks=[WeightDecaySchedule()], resume=file)
    torch.testing.assert_close(again.weights, two.weights, rtol=0, atol=0)


@pytest.mark.slow
def test_dropout_in_two_processes_resumes_exactly(folder):
    def train(ckpt_path=None, *callbacks):
        model = build()
        fit(model, DropoutSchedule(), *callbacks, ckpt_path=ckpt_path, devices=2, strategy="ddp")
        return flat(model.state_dict())

    whole = run_in_processes(partial(train, None, Saving()), 2, folder)
    again = run_in_processes(partial(train, "training.ckpt"), 2, folder)
    assert all(torch.equal(each, whole[0]) for each in (*whole, *again))
