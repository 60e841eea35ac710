"""Steps without a finite loss or gradient, and too little memory or disk space."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from matrix_steps import EVERY_OPTION
from processes_run import run_in_processes

from lightning_xt.cli import main
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.system.messages import explain_error
from lightning_xt.training.callbacks.best_checkpoint import BestCheckpoint
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.callbacks.non_finite import NonFinite
from lightning_xt.training.callbacks.run_folder import RunFolder, find_run_folder
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.replay import replay
from lightning_xt.training.strategies.fsdp2 import FSDP2

OPTIMIZERS = {
    "fused": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "fused": True}},
    "not fused": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    "momentum": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
    "fused momentum": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9, "fused": True}},
    "fused SGD": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "fused": True}},
    "fused Adam": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01, "fused": True}},
    "fused Adagrad": {"class_path": "torch.optim.Adagrad", "init_args": {"lr": 0.01, "fused": True}},
    "Muon": {"class_path": "MuonAdamW", "init_args": {}},
    "NorMuon": {"class_path": "MuonAdamW", "init_args": EVERY_OPTION},
    "SOAP": {"class_path": "SOAPAdamW", "init_args": {"precondition_every": 1}},
}
QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}


class Broken(Callback):
    """Callback that makes the gradients of some batches, numbered over the run, NaN or another value."""

    def __init__(self, *batches, value=float("nan")):
        self.batches, self.value = batches, value

    def on_after_backward(self, trainer, pl_module):
        if trainer.fit_loop.epoch_loop.total_batch_idx in self.batches:
            next(iter(pl_module.parameters())).grad[0, 0] = self.value


class Watched(Callback):
    """Callback that records weights and optimizer state after each batch."""

    def __init__(self):
        self.states, self.batches, self.counts = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)

    def on_train_batch_end(self, trainer, pl_module, *args):
        optimizer = trainer.optimizers[0]
        state = [value for each in optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
        average = [each for each in trainer.callbacks if isinstance(each, ExponentialAverage)]
        means = [p for each in average for p in each._average_model.module.parameters()]
        self.states.append([each.detach().clone() for each in (*pl_module.parameters(), *state, *means)])
        self.counts.append(trainer.callback_metrics.get("optim/skipped_steps"))

    def same(self, first, second):
        pairs = zip(self.states[first], self.states[second], strict=True)
        return [torch.equal(*pair) for pair in pairs]


def model(optimizer="fused", **options):
    decoder = {"dim": 8, "depth": 1, "attention": {"heads": 2}}
    schedule = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 2}}
    return LanguageModel.from_config(
        {"decoder": decoder, "optimizer": OPTIMIZERS[optimizer], "schedule": schedule, **options}
    )


def data():
    return TextFiles("corpus.txt", seq_len=8, batch_size=2)


def fit(*callbacks, trained=None, steps=4, **options):
    trained = model() if trained is None else trained
    options = {
        "max_steps": steps,
        "max_epochs": -1,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        **options,
    }
    guard = [] if any(isinstance(each, NonFinite) for each in callbacks) else [NonFinite()]
    trainer = Trainer(**QUIET | options, callbacks=[*guard, *callbacks])
    trainer.fit(trained, data())
    return trainer


def spoil_losses(trained, *batches, value=float("nan")):
    """Make the loss of some batches, numbered from 0, non-finite, with a finite gradient."""
    step, count = trained.training_step, iter(range(10**6))
    trained.training_step = lambda *args: step(*args) + (value if next(count) in batches else 0.0)
    return trained


NORM = {"gradient_clip_val": 1.0}
VALUE = {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}


@pytest.mark.parametrize(
    ("optimizer", "clip"),
    [
        ("fused", {}),
        ("fused", VALUE),
        ("not fused", NORM),
        ("not fused", VALUE),
        ("momentum", {}),
        ("Muon", NORM),
        ("NorMuon", NORM),
        ("SOAP", NORM),
    ],
    ids=str,
)
def test_a_step_without_a_finite_gradient_changes_nothing(optimizer, clip, folder):
    watched = Watched()
    trainer = fit(ExponentialAverage(0.9), Broken(2), watched, trained=model(optimizer), **clip)
    assert all(watched.same(1, 2))
    assert not any(watched.same(2, 3))
    assert all(value.isfinite().all() for value in watched.states[-1])
    assert trainer.global_step == 4
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 4
    assert watched.counts == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_non_finite_loss_counts_though_its_gradient_is_finite(value, folder):
    watched = Watched()
    fit(watched, trained=spoil_losses(model(), 1, value=value))
    assert all(watched.same(0, 1))
    assert watched.counts == [0, 1, 1, 1]


@pytest.fixture
def unwritten_is_nan():
    """Fill uninitialized memory with NaN instead of numbers by chance."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [*((each, "32") for each in OPTIMIZERS), ("fused", "16"), ("fused momentum", "16")],
)
def test_the_first_step_may_be_skipped(optimizer, precision, folder, unwritten_is_nan):
    watched, trained = Watched(), model(optimizer)
    before = [p.detach().clone() for p in trained.parameters()]
    # The head begins at zero, which stops the gradients of its step, and SOAP begins with the first gradient.
    fit(Broken(0), watched, trained=trained, steps=4, plugins=[Scaled()] if precision == "16" else [])
    assert all(torch.equal(*pair) for pair in zip(before, watched.states[0], strict=False))
    assert not any(torch.equal(*pair) for pair in zip(before, watched.states[-1], strict=False))
    assert all(value.isfinite().all() for value in watched.states[-1])
    assert watched.counts == [1 if precision == "32" else 0] * 4


@pytest.mark.parametrize("bad", [2, 3])
def test_any_batch_of_a_step_skips_it(bad, folder):
    watched = Watched()
    trainer = fit(Broken(bad), watched, accumulate_grad_batches=2)
    assert all(watched.same(1, 3))
    assert not any(watched.same(3, 5))
    assert (trainer.global_step, watched.counts[-1]) == (4, 1)


def test_steps_that_are_not_skipped_do_not_change(folder):
    """Steps that are not skipped give the same weights bit for bit as without a guard."""
    first, second = Watched(), Watched()
    torch.manual_seed(0)
    fit(first, trained=model())
    torch.manual_seed(0)
    fit(second, trained=spoil_losses(model()), gradient_clip_val=None)
    assert all(torch.equal(*pair) for pair in zip(first.states[-1], second.states[-1], strict=True))


class Stopped(Callback):
    """Callback that records the exception and the step at which a run stopped."""

    def on_exception(self, trainer, pl_module, exception):
        self.step = trainer.global_step


def run(tmp_path, *callbacks, **options):
    """Fit with a folder until the run stops, and return the folder and the message."""
    folder = RunFolder(tmp_path / "runs", None, lambda file: file.touch(), ())
    with pytest.raises(ValueError, match="was not finite in") as raised:
        fit(*callbacks, folder, **options)
    assert explain_error(raised.value) is not None
    return folder.folder, str(raised.value)


class Saved(Callback):
    def on_train_start(self, trainer, pl_module):
        (find_run_folder(trainer) / "checkpoints/last.ckpt").touch()


@pytest.mark.parametrize(
    ("optimizer", "saved", "again"),
    [("fused", [Saved()], "resume with --ckpt_path last"), ("not fused", [], "begin again")],
)
def test_too_many_in_a_row_stop_the_run(optimizer, saved, again, folder):
    stopped, watched = Stopped(), Watched()
    trained = spoil_losses(model(optimizer), 1, 3, 4, 5, 6, 7, 8)
    where, said = run(folder, NonFinite(3), stopped, watched, *saved, trained=trained, steps=20)
    assert stopped.step == 6
    assert said == (
        "the loss or its gradient was not finite in 3 optimizer steps in a row, 4 to 6, the limit of --non_finite.limit"
        f"; {where}/non_finite.json lists their batches; lower the learning rate or set "
        f"--trainer.gradient_clip_val, and {again}, with --trainer.detect_anomaly true to see the operation"
    )
    assert all(watched.same(2, 4))


def test_it_is_found_where_it_is_next_looked_at(folder):
    """The limit is found at the next check, and a finished row of skipped steps counts."""
    stopped = Stopped()
    trained = spoil_losses(model(), 2, 3, 4)
    where, said = run(folder, NonFinite(3), stopped, trained=trained, steps=20, log_every_n_steps=8)
    assert stopped.step == 8
    assert "3 to 5, the limit" in said
    found = json.loads((where / "non_finite.json").read_text())
    assert [each["batches"] for each in found["steps"]] == [[2, 3], [3, 4], [4, 5]]


def test_at_the_end_it_is_looked_at_too(folder):
    _, said = run(folder, NonFinite(3), trained=spoil_losses(model(), 1, 2, 3), steps=5, log_every_n_steps=1000)
    assert "2 to 4, the limit" in said


def test_what_stopped_a_run_can_be_served_again(folder):
    watched = Watched()
    trained = spoil_losses(model(), *range(4, 20))
    where, _ = run(folder, NonFinite(2), watched, trained=trained, steps=20, accumulate_grad_batches=2)
    found = json.loads((where / "non_finite.json").read_text())
    assert found["steps"] == [
        {"step": 3, "batches": [4, 6], "samples": [8, 12]},
        {"step": 4, "batches": [6, 8], "samples": [12, 16]},
    ]
    assert (found["processes"], found["data"]["class_path"]) == (1, "TextFiles")
    assert found["seed"] is not None
    again = dict(replay(where / "non_finite.json", data()))
    assert list(again) == [3, 4]
    for served, first in ((again[3], 4), (again[4], 6)):
        assert len(served) == 2
        assert all(torch.equal(*pair) for pair in zip(served, watched.batches[first : first + 2], strict=True))


def test_other_data_are_not_taken_for_those_that_stopped_a_run(folder):
    where, _ = run(folder, NonFinite(2), trained=spoil_losses(model(), *range(20)), steps=20)
    file = where / "non_finite.json"
    (folder / "corpus.txt").write_text("other words than those before " * 30)
    with pytest.raises(
        ValueError, match=r"non_finite\.json is of data with the hash .*; give those of the run's config"
    ):
        next(replay(file, data()))
    found = json.loads(file.read_text())
    found["steps"][0]["samples"], found["data"] = None, {"hash": data_hash()}
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="does not hold the samples of its batches"):
        next(replay(file, data()))


def data_hash():
    served = data()
    served.prepare_data()
    served.setup("fit")
    return served.content_hash


def test_without_a_limit_training_continues(folder):
    watched = Watched()
    fit(NonFinite(None), watched, trained=spoil_losses(model(), *range(12)), steps=13)
    assert watched.counts[-1] == 12


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(limit):
    with pytest.raises(ValueError, match=rf"--non_finite\.limit is {limit}; it must be at least 1 optimizer step"):
        NonFinite(limit)


def test_a_resumed_run_counts_on(folder):
    """A resumed run continues the total and the row of skipped steps."""
    trainer = fit(NonFinite(3), trained=spoil_losses(model(), 0, 2, 3), steps=4)
    trainer.save_checkpoint("four.ckpt", weights_only=False)
    stopped = Stopped()
    wanted = "in 3 optimizer steps in a row, 3 to 5, the limit"
    trainer = Trainer(
        **QUIET | {"max_steps": 9, "max_epochs": -1, "log_every_n_steps": 1}, callbacks=[NonFinite(3), stopped]
    )
    with pytest.raises(ValueError, match=wanted):
        trainer.fit(spoil_losses(model(), *range(9)), data(), ckpt_path="four.ckpt")
    assert stopped.step == 5
    saved = torch.load("four.ckpt", weights_only=True)["callbacks"]["NonFinite"]
    assert saved == {"skipped": 3, "in_a_row": 2, "ends": {1: 1, 2: 2, 3: 3, 4: 4}}


def test_a_module_has_a_separate_guard(folder):
    trainer = Trainer(
        **QUIET | {"max_steps": 30, "max_epochs": -1, "log_every_n_steps": 1, "use_distributed_sampler": False}
    )
    with pytest.raises(ValueError, match="in 10 optimizer steps in a row, 1 to 10, the limit"):
        trainer.fit(spoil_losses(model(), *range(30)), data())
    assert trainer.global_step == 10


class Scaled(MixedPrecision):
    """Precision of float16 as on a GPU, with a scaler that works on a CPU."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))


@pytest.mark.parametrize(("callback", "counted"), [(Broken(1), 0), (None, 1)], ids=["gradient", "loss"])
def test_in_float16_only_a_loss_is_a_fault(callback, counted, folder):
    watched = Watched()
    trained = model("not fused") if callback else spoil_losses(model("not fused"), 1)
    callbacks = [callback] if callback else []
    fit(*callbacks, watched, trained=trained, plugins=[Scaled()])
    assert all(watched.same(0, 1))
    assert not any(watched.same(1, 2))
    assert watched.counts[-1] == counted


def test_the_norm_of_a_gradient_has_no_scale(folder):
    norms = []
    for optimizer, plugins in (("fused", []), ("fused", [Scaled()]), ("not fused", [Scaled()])):
        torch.manual_seed(0)
        trainer = fit(trained=model(optimizer), steps=3, plugins=plugins)
        norms.append(float(trainer.callback_metrics["optim/grad_norm"]))
    assert norms == pytest.approx([norms[0]] * 3, rel=0.05)


# Nothing here changes a sublayer's output in place.
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
@pytest.mark.parametrize("strategy", [lambda: "ddp", FSDP2], ids=["DDP", "FSDP2"])
def test_all_processes_skip_a_step_that_one_cannot_use(strategy, folder):
    """Both processes skip a step if the first has a non-finite loss with a finite gradient."""

    def trained():
        torch.manual_seed(0)
        module = model()
        if os.environ["LOCAL_RANK"] == "0":
            spoil_losses(module, 1)
        watched = Watched()
        options = QUIET | {"max_steps": 4, "max_epochs": -1, "log_every_n_steps": 1, "use_distributed_sampler": False}
        trainer = Trainer(**options, callbacks=[NonFinite(), watched], strategy=strategy(), devices=2)
        trainer.fit(module, data())
        return [[_read_shard(each) for each in state] for state in watched.states], [
            int(each) for each in watched.counts
        ]

    for states, counts in run_in_processes(trained, 2, folder):
        assert counts == [0, 1, 1, 1]
        assert all(torch.equal(*pair) for pair in zip(states[0], states[1], strict=True))
        # A shard of a table may have no token of the batch.
        assert not all(torch.equal(*pair) for pair in zip(states[1], states[2], strict=True))


def _read_shard(tensor):
    return tensor.to_local().clone() if hasattr(tensor, "to_local") else tensor


SPOIL = """
import torch
from lightning.pytorch import Callback


class Spoil(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *_):
        # As arithmetic in 16 bits may, with finite gradients.
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))
"""


def test_cases_r9_weights_that_are_not_finite_are_neither_saved_nor_recommended(fresh, capsys):
    (fresh / "spoil.py").write_text(SPOIL)
    command = ["fit", "-c", "tiny.yaml", "--trainer.callbacks+=spoil.Spoil", "--trainer.callbacks.step"]
    for name, step in (("early", 1), ("late", 5), ("end", 6)):
        assert main([*command, str(step), "--name", name]) == 2
        said = capsys.readouterr().err
        assert f"the weights are not finite after step {4 if step == 1 else 6}, so they are neither saved" in said
        assert ("resume with --ckpt_path last" in said) == (name != "early")
        for file in Path("runs", name).rglob("*.ckpt"):
            weights = torch.load(file, weights_only=True)["state_dict"]
            assert all(each.isfinite().all() for each in weights.values())
    assert not [*Path("runs", "early").rglob("*.ckpt")]
    # Without a checkpoint too.
    assert main([*command, "1", "--trainer.enable_checkpointing", "false", "--validate_every", "null"]) == 2
    assert "the weights are not finite after step 6, so they are neither saved nor measured" in capsys.readouterr().err


def test_cases_r9_a_run_does_not_start_from_weights_that_are_not_finite(trained, capsys):
    file = Path("runs/tiny/0/checkpoints/last.ckpt")
    contents = torch.load(file, weights_only=True)
    next(iter(contents["state_dict"].values())).fill_(float("inf"))
    torch.save(contents, "bad.ckpt")
    for option in ("--ckpt_path", "--init_from"):
        assert main(["fit", "-c", "tiny.yaml", "--trainer.max_steps", "9", option, "bad.ckpt", "--name", "n"]) == 2
        assert "the weights that the run starts from are not finite; start from another" in capsys.readouterr().err


def test_cases_r9_a_loss_that_is_not_finite_is_not_the_best(folder):
    best = BestCheckpoint()
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=bool))
    assert [best.check_monitor_top_k(trainer, torch.tensor(each)) for each in (math.nan, math.inf, 2.0)] == [0, 0, 1]


def with_optimizer(name, **options):
    decoder = {"dim": 8, "depth": 1, "attention": {"heads": 2}}
    optimizer = {"class_path": name, "init_args": options}
    return LanguageModel.from_config({"decoder": decoder, "optimizer": optimizer, "schedule": None})


@pytest.mark.parametrize("optimizer", ["AdamW", "torch.optim.RMSprop", "torch.optim.Adagrad", "MuonAdamW"])
def test_cases_r9_an_eps_that_rounds_to_zero_is_refused(optimizer, folder):
    with pytest.raises(ValueError, match=r"divides by eps 1e-\d+ where .* in float16, .* use --trainer"):
        fit(trained=with_optimizer(optimizer), precision="16-true")


def test_cases_r9_a_larger_eps_trains_in_16_bits(folder):
    trained = with_optimizer("AdamW", eps=1e-4)
    fit(trained=trained, precision="16-true")
    assert all(each.isfinite().all() for each in trained.parameters())
    fit(trained=model(), precision="bf16-true")
