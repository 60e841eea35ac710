"""Memories travel from batch to batch, into checkpoints, and through an evaluation."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import memory_fits
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from memory_fits import DECODER, QUIET, build, fit, open_lanes, write_corpus
from processes_run import run_in_processes

from lightning_xt.core.batch import LaneBatch
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.objectives.next_token import NextToken
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.carried_memories import CarriedMemories
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.step_boundaries import at_step_boundary
from lightning_xt.training.strategies.fsdp2 import FSDP2


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus()


def read_weights(model):
    return {name: each.clone() for name, each in model.state_dict().items()}


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


class SavesHalfway(Callback):
    """Callback that saves after the fourth step."""

    def __init__(self, file):
        self.file = file

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4 and at_step_boundary(trainer):
            trainer.save_checkpoint(self.file)


class Spy(Callback):
    """Callback that records the memories that each training batch reads and leaves."""

    def __init__(self):
        self.read, self.left = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        inputs = pl_module._memories.add(batch, None)
        self.read.append(None if inputs is None else inputs.memories)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.left.append(pl_module._memories._groups[batch.group])


def test_each_batch_reads_what_its_rows_left():
    spy = Spy()
    fit(12, data=open_lanes(batch_size=12), callbacks=[spy])
    # A pass ends after (990 - 8) // (12 * 8) = 10 batches.
    assert [k for k, each in enumerate(spy.read) if each is None] == [0, 10]
    for read, left in zip(spy.read[1:], spy.left[:-1], strict=True):
        assert read is None or read is left
        assert not any(each.requires_grad for each in left.vectors)


def test_bf16_keeps_the_memories_of_the_stream():
    model = fit(2, precision="bf16-mixed", limit_val_batches=0)
    assert model._memories._groups[0].vectors[0].dtype == torch.float32


@pytest.mark.slow
def test_compiling_takes_one_program_more():
    """Train in another process, because the run-time checks of shapes in the tests cannot be traced."""
    environment = {**os.environ, "LIGHTNING_XT_NO_SHAPE_CHECKS": "1"}
    run = subprocess.run(
        [sys.executable, memory_fits.__file__], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-3:] == ["SegmentRecurrence 6: 2", "SegmentRecurrence 30: 3", "MemoryTokens 6: 2"]


def test_the_batches_of_a_step_keep_theirs():
    spy = Spy()
    fit(5, callbacks=[spy], accumulate_grad_batches=2)
    assert [each is None for each in spy.read] == [True, True] + [False] * 8
    assert all(read is left for read, left in zip(spy.read[2:], spy.left[:-2], strict=True))


@pytest.mark.parametrize(
    ("accumulate", "average"),
    [(2, True), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, False), (1, True), (2, False)))],
)
def test_a_resumed_run_equals_the_uninterrupted_one(accumulate, average):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}

    def callbacks():
        return [ExponentialAverage(0.5)] if average else []

    whole = fit(7, callbacks=[*callbacks(), SavesHalfway("part.ckpt")], **options)
    state = torch.load("part.ckpt", weights_only=True)["memories"]
    assert {len(each) for each in state.values()} == {2 * accumulate}
    resumed = fit(7, callbacks=callbacks(), ckpt_path="part.ckpt", **options)
    assert_same(read_weights(resumed), read_weights(whole))
    checkpoint = torch.load("part.ckpt", weights_only=True)
    del checkpoint["memories"]
    torch.save(checkpoint, "lost.ckpt")
    with pytest.raises(AssertionError):
        assert_same(read_weights(fit(7, callbacks=callbacks(), ckpt_path="lost.ckpt", **options)), read_weights(whole))


def train_in(processes, folder, steps, *, batch_size, file=None, ckpt_path=None, accumulate=1, strategy=None):
    """Train in float64, and return the weights and val/bits_per_byte of each process."""

    def train():
        model = build(dropout=0.0, optimizer={"class_path": "SGD", "init_args": {"lr": 0.1}}).double()
        callbacks = [] if file is None else [SavesHalfway(file)]
        options = {"devices": processes, "strategy": strategy or "auto"}
        data = open_lanes(batch_size=batch_size)
        fit(
            steps,
            model=model,
            data=data,
            callbacks=callbacks,
            ckpt_path=ckpt_path,
            accumulate_grad_batches=accumulate,
            **options,
        )
        weights = model.trainer.strategy.lightning_module_state_dict()
        return weights, float(model.trainer.callback_metrics["val/bits_per_byte"])

    return run_in_processes(train, processes, folder)


@pytest.mark.parametrize("kind", ["ddp", pytest.param("FSDP2", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_two_processes_carry_and_save_the_memories_of_one(tmp_path, kind):
    strategy = FSDP2() if kind == "FSDP2" else kind
    ((whole, figure),) = train_in(1, tmp_path, 7, batch_size=4, file=tmp_path / "one.ckpt")
    (first, measured), (second, same) = train_in(
        2, tmp_path, 7, batch_size=2, file=tmp_path / "two.ckpt", strategy=strategy
    )
    torch.testing.assert_close(first, whole, rtol=0, atol=1e-12)
    if kind == "ddp":
        assert_same(first, second)
    assert measured == same == pytest.approx(figure, rel=1e-6)
    one, two = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["memories"] for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    resumed = train_in(2, tmp_path, 7, batch_size=2, ckpt_path=tmp_path / "two.ckpt", strategy=strategy)
    assert_same(resumed[0][0], first)
    if kind == "ddp":
        return
    # The rows of one process go to others.
    for processes, batch_size, accumulate in ((1, 1, 4), (2, 1, 2)):
        given = {"batch_size": batch_size, "accumulate": accumulate, "ckpt_path": tmp_path / "two.ckpt"}
        given["strategy"] = strategy if processes > 1 else None
        torch.testing.assert_close(train_in(processes, tmp_path, 7, **given)[0][0], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("documents", ["separator", pytest.param("joined", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("segments", "lanes", "batch_size"),
    [("SegmentRecurrence", 1, 4), ("EnhancedRecurrence", 3, 2), ("MemoryTokens", 5, 5)],
)
def test_evaluation_equals_a_loop_over_the_split(segments, lanes, batch_size, documents):
    options = {"vocab": {"target": 256, "separator": 255}} if documents == "separator" else {}
    model = build(segments, **options).double().eval().requires_grad_(False)
    data = open_lanes(eval_lanes=lanes, eval_batch_size=batch_size, validation=0.13, documents=documents)
    (metrics,) = Trainer(**QUIET | {"devices": 1}, precision="64-true").validate(model, data, verbose=False)
    text = torch.from_numpy(data.splits.validation[:].astype("int64"))
    assert (text == 255).sum() > 2
    windows = math.ceil((len(text) - 1) / 8)
    length = math.ceil(windows / lanes) * 8
    total = 0.0
    for first in range(0, len(text) - 1, length):
        memories = None
        # Segment by segment, not window by window.
        for start in range(first, min(first + length, len(text) - 1), 4):
            row = text[start : min(start + 5, first + length + 1)][None]
            numbers = (row[:, :-1] == 255).cumsum(1) if documents == "separator" else None
            inputs = Inputs(memories=memories, documents=numbers)
            logits, trace = model.decoder(row[:, :-1], inputs=inputs, trace=Trace())
            total -= float(logits[0].log_softmax(-1).gather(1, row[0, 1:, None]).sum())
            memories = trace.memories
    assert metrics["val/bits_per_byte"] == pytest.approx(total / (len(text) - 1) / math.log(2), rel=3e-7)


def test_memories_in_the_middle_of_a_step_are_those_at_its_sample():
    class SavesInAStep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx in (0, 4):
                trainer.save_checkpoint(f"{batch_idx}.ckpt")

    whole, resumed = Spy(), Spy()
    fit(4, callbacks=[whole, SavesInAStep()], accumulate_grad_batches=2, limit_val_batches=0)
    assert "memories" not in torch.load("0.ckpt", weights_only=True)
    fit(4, callbacks=[resumed], accumulate_grad_batches=2, limit_val_batches=0, ckpt_path="4.ckpt")
    # The rows of batch 5 continue those of batch 3, and the rows of batch 6 those of batch 4.
    assert_same(resumed.read[0].vectors, whole.left[3].vectors)
    saved = torch.load("4.ckpt", weights_only=True)["memories"]
    assert_same(saved["vectors.0"], torch.cat((whole.left[4].vectors[0], whole.left[3].vectors[0])))


def test_memories_are_copied_once(monkeypatch):
    cloned, clone = [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: cloned.append(tensor.dtype) or clone(tensor))
    tokens, vectors = torch.ones(2, 9, dtype=torch.int64), torch.ones(2, 8, 4, requires_grad=True)
    carried = CarriedMemories(copies=True)
    carried.keep(LaneBatch(tokens, None, True), Memories((vectors,), tokens=tokens[:, :8]))
    # Replacing what is not finite makes new vectors.
    assert cloned == [torch.int64]
    kept = carried.add(LaneBatch(tokens, None, False), None).memories
    assert not kept.vectors[0].requires_grad
    assert kept.tokens.data_ptr() != tokens.data_ptr() and kept.vectors[0].data_ptr() != vectors.data_ptr()


def test_memories_that_are_not_finite_become_zeros():
    model, spy = build(), Spy()
    steps = []

    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            steps.append(bool(pl_module.skipped_step))
            if batch_idx == 2:
                pl_module._memories.add(batch, None).memories.vectors[0][1] = math.inf

    fit(6, model=model, callbacks=[spy, Poison()])
    assert steps == [False] * 3 + [True] + [False] * 2
    assert all(each.isfinite().all() for left in spy.left[2:] for each in left.vectors)
    assert (spy.left[2].vectors[1][1] == 0).all() and (spy.left[2].vectors[1][0] != 0).any()


def test_memories_of_other_rows_are_refused():
    fit(4, data=open_lanes(batch_size=3)).trainer.save_checkpoint("three.ckpt")
    checkpoint = torch.load("three.ckpt", weights_only=True)
    checkpoint["TextFiles"]["lanes"] = 2
    torch.save(checkpoint, "other.ckpt")
    rule = (
        r"memories of 3 rows, which do not divide by 1 \(processes\) x 2 \(--trainer\.accumulate_grad_batches\); resume"
    )
    with pytest.raises(ValueError, match=rule):
        fit(5, data=open_lanes(batch_size=1), ckpt_path="other.ckpt", accumulate_grad_batches=2)


def test_random_windows_carry_nothing():
    data = TextFiles("corpus.txt", seq_len=8, batch_size=2)
    model = fit(4, data=data)
    assert not model._memories._groups
    model.trainer.save_checkpoint("x.ckpt")
    assert "memories" not in torch.load("x.ckpt", weights_only=True)


def test_an_objective_that_loses_memories_is_refused():
    class Losing(NextToken):
        def forward(self, *args, **options):
            return replace(super().forward(*args, **options), memories=None)

    model = build()
    model.objective = Losing(ObjectiveShape.from_model(model.decoder, {}))
    with pytest.raises(ValueError, match=r"objective: Losing keeps no memories, .* or set --data\.order random"):
        fit(1, model=model)


def test_memories_of_another_model_are_refused():
    fit(4, model=build()).trainer.save_checkpoint("six.ckpt")
    rule = r"the checkpoint's memories are not of this model: .* of up to 5 tokens; resume with the segments of its run"
    with pytest.raises(ValueError, match=rule) as refused:
        fit(5, model=build(memory=5), ckpt_path="six.ckpt")
    # The command line reports the first error of a chain.
    assert refused.value.__context__ is None
    checkpoint = torch.load("six.ckpt", weights_only=True)
    checkpoint["memories"]["vectors.7"] = checkpoint["memories"].pop("vectors.0")
    torch.save(checkpoint, "odd.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint's memories are not of this model: 'vectors\.0'; resume"):
        fit(5, model=build(), ckpt_path="odd.ckpt")


def test_a_model_without_memory_trains_and_resumes_on_lanes():
    fit(4, model=build()).trainer.save_checkpoint("six.ckpt")
    plain = LanguageModel.from_config({"decoder": DECODER, "schedule": None})
    model = fit(5, model=plain, ckpt_path="six.ckpt")
    assert not model._memories._groups
