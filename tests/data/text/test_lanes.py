"""Lanes read a text in order, and nothing but the samples of a step decides what they read."""

import json
import warnings
from itertools import chain, islice, permutations

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_xt.core.batch import LaneBatch
from lightning_xt.data.loading.sampler import batch_lanes_once
from lightning_xt.data.text.lanes import EvaluationLanes, TrainingLanes, count_needed
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.text.windows import EvaluationWindows
from lightning_xt.training.replay import replay

TEXT = np.random.default_rng(3).integers(0, 256, 997, dtype=np.uint8)


@pytest.fixture
def file(tmp_path):
    TEXT.tofile(tmp_path / "text")
    return str(tmp_path / "text")


@pytest.fixture
def tokens(file):
    return MappedTokens(file, 0, 997)


def test_each_row_continues_the_row_of_the_batch_before(tokens):
    lanes = TrainingLanes(tokens, 7, seed=2, lanes=5, batch=5)
    # 5 lanes of 28 windows need 980 tokens, and 7 more have room for every place in a window.
    assert lanes.length == 28
    offsets, begins, before = set(), [], None
    for k in range(3 * 28):
        batch = lanes[5 * k] if k == 1 else lanes.__getitems__(range(5 * k, 5 * k + 5))
        starts = lanes.offsets(range(5 * k, 5 * k + 5))
        begins.append(batch.begins)
        for row, start in zip(batch.tokens, starts, strict=False):
            assert row.tolist() == TEXT[start : start + 8].tolist()
        if batch.begins:
            offsets.add(int(starts[0]))
            assert list(starts) == [starts[0] + lane * 28 * 7 for lane in range(5)]
        else:
            assert list(starts - before) == [7] * 5
        before = starts
    assert [k for k, each in enumerate(begins) if each] == [0, 28, 56]
    assert len(offsets) > 1 and max(offsets) <= 997 - 1 - 980


def test_the_drawing_in_the_docstring():
    lanes = TrainingLanes(TEXT[:12], 2, 0, lanes=2, batch=2)
    starts = lanes.offsets(range(4))
    assert lanes.length == 2 and list(starts - starts[0]) == [0, 4, 2, 6]


def test_every_offset_of_a_pass_is_drawn(tokens):
    lanes = TrainingLanes(tokens, 7, seed=2, lanes=5, batch=5)
    starts = [int(lanes.offsets([k * 28 * 5])[0]) for k in range(400)]
    assert set(starts) == set(range(17))
    other = TrainingLanes(tokens, 7, seed=3, lanes=5, batch=5)
    assert [int(other.offsets([k * 28 * 5])[0]) for k in range(400)] != starts


def test_the_shortest_text_has_one_window_a_lane():
    shortest = TrainingLanes(TEXT[: count_needed(7, 3)], 7, 0, lanes=3, batch=3)
    assert shortest.length == 1
    # The last token of the last lane is at index 28 - 1 at most.
    assert all(shortest.offsets(range(3 * k, 3 * k + 3)).max() + 7 < 28 for k in range(50))


def test_the_batches_of_a_step_have_different_lanes(tokens):
    lanes = TrainingLanes(tokens, 7, seed=2, lanes=6, batch=2)
    groups = [lanes.place(range(first, first + 2)) for first in range(0, 12, 2)]
    assert groups == [(True, 0), (True, 1), (True, 2), (False, 0), (False, 1), (False, 2)]


@pytest.mark.parametrize(("lanes", "batch_size", "world"), [(1, 1, 1), (5, 2, 1), (5, 2, 2), (3, 4, 4), (999, 7, 2)])
def test_evaluation_in_lanes_counts_every_token_once(lanes, batch_size, world):
    windows = EvaluationLanes(TEXT[:200], 7, lanes)
    plain = EvaluationWindows(TEXT[:200], 7)
    assert len(plain) == 29 and windows.lanes == min(lanes, 29)
    counted, shares = [], []
    for rank in range(world):
        batches = batch_lanes_once(windows.lanes, windows.length, batch_size, rank=rank, world=world)
        shares.append(len(batches))
        for before, numbers in zip([[], *batches], batches, strict=False):
            batch = windows.__getitems__(numbers)
            assert batch.begins == (before != [number - 1 for number in numbers] or numbers[0] % windows.length == 0)
            same = plain.__getitems__(numbers)
            assert torch.equal(batch.tokens, same.tokens) and torch.equal(batch.scored, same.scored)
            counted += [number for number, row in zip(numbers, batch.scored, strict=True) if row.any()]
    assert sorted(counted) == list(range(29)) and len(set(shares)) == 1


class Recorder(LightningModule):
    """Module that trains one number and records its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.scored = [], 0

    def training_step(self, batch, batch_idx):
        self.seen.append(LaneBatch(batch.tokens.clone(), *batch[1:]))
        return self.weight * batch.tokens.float().mean()

    def validation_step(self, batch, batch_idx):
        self.scored += int(batch.scored.sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def build_trainer(steps, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_steps": steps, "max_epochs": -1, "use_distributed_sampler": False, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", **{"enable_checkpointing": False, "devices": 1, **settings, **quiet, **options})


def fit(file, steps, *, ckpt_path=None, batch_size=2, data=None, model=None, **options):
    """Train, and return the model with the batches it saw."""
    model = model or Recorder()
    run = build_trainer(steps, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        run.fit(model, data or open_lanes(file, batch_size=batch_size), ckpt_path=ckpt_path)
    return model


def open_lanes(file, **options):
    return TextFiles(file, order="lanes", **{"seq_len": 7, "batch_size": 2, "seed": 5} | options)


def join_steps(seen, batches):
    """Join the batches of each step."""
    return [torch.cat([each.tokens for each in seen[at : at + batches]]) for at in range(0, len(seen), batches)]


def test_accumulated_batches_are_one_larger_batch(file):
    whole, parts = fit(file, 40, batch_size=6), fit(file, 40, batch_size=2, accumulate_grad_batches=3)
    assert torch.equal(torch.stack(join_steps(parts.seen, 3)), torch.stack(join_steps(whole.seen, 1)))
    # 897 training tokens: a pass ends after (897 - 7) // (6 * 7) windows.
    assert [k for k, each in enumerate(whole.seen) if each.begins] == [0, 21]
    assert [each.group for each in parts.seen] == [0, 1, 2] * 40


@pytest.mark.parametrize("stop", [1, 5, 23])
def test_a_run_resumes_in_the_middle_of_a_pass(file, tmp_path, stop):
    whole = fit(file, 30, accumulate_grad_batches=2)
    part = fit(file, stop, accumulate_grad_batches=2)
    part.trainer.save_checkpoint(tmp_path / "part.ckpt")
    saved = torch.load(tmp_path / "part.ckpt", weights_only=True)["TextFiles"]
    assert saved["lanes"] == 4 and saved["samples_seen"] == 4 * stop
    rest = fit(file, 30, accumulate_grad_batches=2, ckpt_path=tmp_path / "part.ckpt")
    served = [*part.seen, *rest.seen]
    assert torch.equal(torch.stack(join_steps(served, 1)), torch.stack(join_steps(whole.seen, 1)))
    assert [each[2:] for each in served] == [each[2:] for each in whole.seen]
    # The same samples a step, cut otherwise.
    other = fit(file, 30, batch_size=4, ckpt_path=tmp_path / "part.ckpt")
    assert torch.equal(torch.stack(join_steps(other.seen, 1)), torch.stack(join_steps(rest.seen, 2)))


class Gathering(Recorder):
    """Recorder that writes each rank's batches to files, because processes share no memory."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        torch.save((self.seen, self.scored), self.folder / f"rank{self.trainer.global_rank}")


def test_two_processes_read_the_lanes_of_one(file, tmp_path):
    alone = fit(file, 25, batch_size=6)
    fit(file, 25, batch_size=3, model=Gathering(tmp_path), devices=2, strategy="ddp_fork")
    with torch.serialization.safe_globals([LaneBatch]):
        (seen0, scored0), (seen1, scored1) = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    both = list(chain(*zip(seen0, seen1, strict=True)))
    assert torch.equal(torch.stack(join_steps(both, 2)), torch.stack(join_steps(alone.seen, 1)))
    assert [each.begins for each in seen1] == [each.begins for each in alone.seen]
    assert scored0 + scored1 == alone.scored


def test_validation_counts_every_byte(file):
    alone = fit(file, 4, check_val_every_n_epoch=None, val_check_interval=4)
    assert alone.scored == int(997 * 0.05) - 1


def test_epochs_continue_but_overfitting_repeats(file):
    epochs = {"max_epochs": 2, "limit_val_batches": 0}
    going_on, repeating = fit(file, -1, limit_train_batches=3, **epochs), fit(file, -1, overfit_batches=3, **epochs)
    assert [each.begins for each in going_on.seen] == [True] + [False] * 5
    assert [each.begins for each in repeating.seen] == [True, False, False] * 2
    for first, again in zip(repeating.seen[:3], repeating.seen[3:], strict=True):
        assert torch.equal(first.tokens, again.tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"resident": True},
        pytest.param({"num_workers": 1}, marks=pytest.mark.slow),
        pytest.param({"num_workers": 1, "resident": True}, marks=pytest.mark.slow),
    ],
)
def test_workers_and_resident_tokens_serve_the_same_batches(file, options):
    plain, other = (fit(file, 3, data=open_lanes(file, **each), limit_val_batches=0).seen for each in ({}, options))
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one.tokens, two.tokens) and one[1:] == two[1:]


def test_a_step_is_served_again(file, tmp_path):
    whole = fit(file, 10, accumulate_grad_batches=2)
    data = open_lanes(file)
    record = {"lanes": 4, "hash": data.content_hash, "class_path": "TextFiles"}
    step = {"step": 7, "batches": [12, 14], "samples": [24, 28]}
    (tmp_path / "record").write_text(json.dumps({"data": record, "processes": 2, "steps": [step]}))
    ((number, batches),) = replay(tmp_path / "record", open_lanes(file, batch_size=1))
    assert number == 7
    assert torch.equal(torch.cat([each.tokens for each in batches]), join_steps(whole.seen, 2)[6])


def test_another_number_of_lanes_is_refused(file, tmp_path):
    fit(file, 3).trainer.save_checkpoint(tmp_path / "lanes.ckpt")
    rule = r"read its text in 2 lanes, but --data\.batch_size 3 x 1 \(processes\) x 2 .* give 6; let their"
    with pytest.raises(ValueError, match=rule):
        fit(file, 4, batch_size=3, accumulate_grad_batches=2, ckpt_path=tmp_path / "lanes.ckpt")
    # Random windows have no lanes.
    data = TextFiles(file, seq_len=7, batch_size=3)
    build_trainer(4, limit_val_batches=0).fit(Unordered(), data, ckpt_path=tmp_path / "lanes.ckpt")
    assert data.samples_seen == 6 + 3


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            {"seq_len": 8},
            r"lanes with --data\.seq_len 7, not 8; set --data\.seq_len 7, or begin a run with its weights",
        ),
        ({"seed": 6}, r"lanes with --data\.seed 5, not 6; set --data\.seed 5, or begin a run with its weights: --init"),
        (
            {"test": 0.2},
            r"another text in lanes: its hash is \w{16}, not \w{16}; resume with that text, or begin a run",
        ),
    ],
)
def test_lanes_in_other_places_are_refused(file, tmp_path, options, rule):
    fit(file, 3).trainer.save_checkpoint(tmp_path / "lanes.ckpt")
    with pytest.raises(ValueError, match=rf"^the checkpoint's run read .*{rule}"):
        fit(file, 4, data=open_lanes(file, **options), ckpt_path=tmp_path / "lanes.ckpt")
    # A checkpoint of earlier versions, which cannot be compared.
    checkpoint = torch.load(tmp_path / "lanes.ckpt", weights_only=True)
    checkpoint["TextFiles"] = {"samples_seen": 6, "hash": None, "lanes": 2}
    torch.save(checkpoint, tmp_path / "earlier.ckpt")
    data = open_lanes(file, **options)
    fit(file, 4, data=data, ckpt_path=tmp_path / "earlier.ckpt")
    assert data.samples_seen == 8


class Unordered(Recorder):
    """Module that reads plain tensors."""

    def training_step(self, batch, batch_idx):
        return self.weight * batch.float().mean()


def test_a_run_of_random_windows_does_not_resume_in_lanes(file, tmp_path):
    run = build_trainer(3, limit_val_batches=0)
    run.fit(Unordered(), TextFiles(file, seq_len=7))
    run.save_checkpoint(tmp_path / "random.ckpt")
    with pytest.raises(ValueError, match=r"--data\.order is lanes, but the checkpoint's run read random windows; omit"):
        fit(file, 4, ckpt_path=tmp_path / "random.ckpt")


def test_another_order_of_windows_is_reported(file, tmp_path, caplog):
    rule = (
        r"--data\.order is lanes, but the checkpoint's run read shuffled windows; set --data\.order shuffled, or begin"
    )
    for order, kept in (("random", {}), ("shuffled", {"order": "shuffled"})):
        run, data = build_trainer(3, limit_val_batches=0), TextFiles(file, seq_len=7, order=order)
        run.fit(Unordered(), data)
        assert data.describe_order() == kept
        run.save_checkpoint(tmp_path / f"{order}.ckpt")
    with pytest.raises(ValueError, match=rule):
        fit(file, 4, ckpt_path=tmp_path / "shuffled.ckpt")
    fit(file, 3).trainer.save_checkpoint(tmp_path / "lanes.ckpt")
    for there, here in permutations(("random", "shuffled", "lanes"), 2):
        if here != "lanes":
            caplog.clear()
            with caplog.at_level("INFO"):
                data = TextFiles(file, seq_len=7, order=here)
                data.load_state_dict(torch.load(tmp_path / f"{there}.ckpt", weights_only=True)["TextFiles"])
            line = f"the checkpoint's run has --data.order {there}; the run continues with --data.order {here}"
            assert line in caplog.messages
    caplog.clear()
    TextFiles(file, order="shuffled").load_state_dict({"samples_seen": 3, "order": "shuffled"})
    assert "--data.order" not in caplog.text


def test_a_text_too_short_for_its_lanes(file):
    rule = (
        r"--data\.order lanes needs 903 tokens of training text, a window of --data\.seq_len 7 for each lane and one "
        r"more, but .* has 899, and --data\.batch_size 64 x 1 \(processes\) x 2 "
        r"\(--trainer\.accumulate_grad_batches\) give 128 lanes; lower --data\.batch_size or --data\.seq_len, omit "
        r"--data\.order, or "
    )
    with pytest.raises(ValueError, match=rule):
        fit(file, 4, batch_size=64, accumulate_grad_batches=2)


def test_impossible_options(file):
    with pytest.raises(ValueError, match=r"--data\.stride 3 lets windows overlap, but --data\.order lanes reads"):
        open_lanes(file, stride=3)
    with pytest.raises(ValueError, match=r"--data\.eval_lanes"):
        open_lanes(file, eval_lanes=0)


def test_without_a_trainer(file):
    data = open_lanes(file, batch_size=3)
    first = list(islice(data.train_dataloader(), 2))
    assert data.lanes == 3 and [each.begins for each in first] == [True, False]
    assert data.describe_size(1).endswith("21 tokens a step, in 3 lanes")
