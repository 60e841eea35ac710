"""Laws of all sources of pairs: evaluation, prediction, and resuming a run where it stopped."""

import warnings
from functools import partial
from itertools import chain, islice, pairwise

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_xt.core.batch import EvaluationPairs, PairBatch
from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.pairs.generator_pairs import GeneratorPairs
from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes

LINES = [f"{n}" + "abcdefgh"[: 1 + n % 8] for n in range(40)]


class Recorder(LightningModule):
    """Module that trains one number and records its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.measured, self.sources = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append([each.tolist() for each in batch])
        # A random number, as a model with dropout draws.
        return self.weight * torch.rand(()) * batch.src.double().mean()

    def validation_step(self, batch, batch_idx):
        self.measured.append(batch)

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        self.sources.append(batch)
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(Callback):
    """Callback that saves after every batch and every validation, as `ModelCheckpoint` does."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"batch{len(pl_module.seen)}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"validation{len(pl_module.seen)}.ckpt")


def trainer(folder, steps, **options):
    settings = {
        "max_steps": steps,
        "max_epochs": -1,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **options})


def cycle():
    while True:
        src = torch.randint(2, 11, (3, 5))
        yield src, torch.cat([torch.ones_like(src[:, :1]), src], dim=1), torch.ones_like(src).bool()


@pytest.fixture
def kinds(tmp_path):
    """Return a function that builds the module of a run, or of one process of two with the same batches."""
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{line}\t{line}{line}\n" for line in LINES))
    corpus = partial(ParallelText, str(file), tokenizer=SpecialBytes, validation=0.2, seed=3)
    return {
        "CopyTask": lambda world=1: CopyTask(
            min_length=1, max_length=9, batch_size=4 // world, validation_size=7, test_size=5, eval_batch_size=2, seed=3
        ),
        "GeneratorPairs": lambda world=1: GeneratorPairs(cycle, source_vocab_size=11, target_vocab_size=11, seed=3),
        # About seven batches an epoch.
        "ParallelText": lambda world=1: corpus(max_tokens=80 // world),
    }


KINDS = ["CopyTask", "GeneratorPairs", "ParallelText"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_where_it_stopped(kinds, kind, tmp_path):
    whole = Recorder()
    trainer(tmp_path, 12, callbacks=[Saver(tmp_path)]).fit(whole, kinds[kind]())
    assert len(whole.seen) == 12 and all(one != other for one, other in pairwise(whole.seen))
    for name in ("batch1", "batch5", "validation6", "batch11"):
        rest, data = Recorder(), kinds[kind]()
        path = tmp_path / f"{name}.ckpt"
        done = int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
        saved = torch.load(path, weights_only=True)[kind]
        trainer(tmp_path, 12).fit(rest, data, ckpt_path=path, weights_only=True)
        assert saved["hash"] == data.content_hash
        assert rest.seen == whole.seen[done:], name
    assert data.samples_seen == data.samples_after(0, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_overfitting_repeats(kinds, kind, tmp_path):
    repeating = Recorder()
    epochs = {"max_epochs": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    trainer(tmp_path, -1, overfit_batches=3, **epochs).fit(repeating, kinds[kind]())
    assert repeating.seen[:3] == repeating.seen[3:]


@pytest.mark.parametrize("kind", KINDS)
def test_loading_draws_no_random_numbers(kinds, kind):
    data = kinds[kind]()
    state = torch.get_rng_state()
    for stage in ("fit", "test"):
        data.setup(stage)
    list(islice(data.train_dataloader(), 3))
    assert len(list(data.val_dataloader())) > 0 and len(list(data.test_dataloader())) > 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_trainer_cycle(kinds, kind, tmp_path):
    data, model = kinds[kind](), Recorder()
    run = trainer(tmp_path, 1)
    run.fit(model, data)
    for split, measure in (("validation", run.validate), ("test", run.test)):
        model.measured.clear()
        measure(model, data, verbose=False)
        assert all(isinstance(batch, EvaluationPairs) for batch in model.measured)
        numbers = sorted(number for batch in model.measured for number in batch.index.tolist())
        assert numbers == list(range(len(numbers))) and len(numbers) > 1, split
        for batch in model.measured:
            assert batch.src.shape == batch.src_mask.shape and len(batch.src) == len(batch.tgt) == len(batch.index)
            assert (batch.tgt[:, 0] == data.vocab["start"]).all() and batch.src_mask.any(1).all()
            assert (batch.references is None) == (kind != "ParallelText")


def on_rank(data, rank, world):
    """Attach a module to a trainer of several processes."""

    class Trainer:
        """Trainer with the attributes that a module reads."""

        distributed_sampler_kwargs = {"rank": rank, "num_replicas": world}
        overfit_batches = 0

        class strategy:  # noqa: N801
            root_device = torch.device("cpu")

        class fit_loop:  # noqa: N801
            class epoch_loop:  # noqa: N801
                class batch_progress:  # noqa: N801
                    class total:  # noqa: N801
                        processed = 0

    data.trainer = Trainer
    return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [2, 5])
def test_evaluation_is_dealt_out_in_whole_batches(kinds, kind, world):
    alone = list(kinds[kind]().test_dataloader())
    ranks = [list(on_rank(kinds[kind](), rank, world).test_dataloader()) for rank in range(world)]
    assert len({len(share) for share in ranks}) == 1
    for rank, share in enumerate(ranks):
        real = alone[rank::world]
        for batch, expected in zip(share, real, strict=False):
            assert all(torch.equal(one, other) for one, other in zip(batch[:4], expected[:4], strict=True))
            assert batch.references == expected.references
        for batch in share[len(real) :]:
            assert torch.equal(batch.src, alone[0].src) and batch.index.tolist() == [-1] * len(alone[0].index)
    assert sum(len(share) for share in ranks) - len(alone) < world


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_split_over_processes(kinds, kind):
    """Two processes together take the batches that one takes with the budget of both."""
    alone = list(islice(kinds[kind]().train_dataloader(), 12))
    left, right = (list(islice(on_rank(kinds[kind](2), rank, 2).train_dataloader(), 6)) for rank in range(2))
    if kind == "GeneratorPairs":
        together = [batch for both in zip(left, right, strict=True) for batch in both]
        assert [batch.src.tolist() for batch in together] == [batch.src.tolist() for batch in alone]
        return
    for one, other, whole in zip(left, right, alone, strict=False):
        assert sorted(real_pairs(one) + real_pairs(other)) == sorted(real_pairs(whole))


def real_pairs(batch):
    assert isinstance(batch, PairBatch)
    sources = [ids[mask].tolist() for ids, mask in zip(batch.src, batch.src_mask, strict=True)]
    return list(zip(sources, [[each for each in ids if each] for ids in batch.tgt.tolist()], strict=True))


class Gathering(Recorder):
    """Recorder that writes each rank's batches to files, because processes share no memory."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        numbers = [batch.index.tolist() for batch in self.measured]
        torch.save((self.seen, numbers), self.folder / f"rank{self.trainer.global_rank}")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_and_measure_as_one(kinds, kind, tmp_path):
    run = trainer(tmp_path, 3, devices=2, strategy="ddp_fork")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        run.fit(Gathering(tmp_path), kinds[kind](2))
    alone = Recorder()
    trainer(tmp_path, 6 if kind == "GeneratorPairs" else 3).fit(alone, kinds[kind]())
    (seen0, numbers0), (seen1, numbers1) = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    if kind == "GeneratorPairs":
        assert (seen0, seen1) == (alone.seen[::2], alone.seen[1::2])
    else:
        assert [len(one[0]) + len(other[0]) for one, other in zip(seen0, seen1, strict=True)] == [
            len(whole[0]) for whole in alone.seen
        ]
    # Whole batches in turn, and fillers if one process has fewer; one process's options decide the content of a batch.
    expected = [batch.index.tolist() for batch in kinds[kind](2).val_dataloader()]
    assert (real(numbers0), real(numbers1)) == (expected[::2], expected[1::2])
    assert sorted(chain(*expected)) == list(range(len(list(chain(*expected)))))


def real(numbers):
    return [each for each in numbers if set(each) != {-1}]


def test_prediction_keeps_every_line(kinds, tmp_path):
    file = tmp_path / "sources.txt"
    lines = [b"", b"b" * 40, b"ccc", b"\xff", b"e" * 7, b""]
    file.write_bytes(b"\n".join(lines) + b"\n")
    make = partial(ParallelText, "missing.tsv", tokenizer=SpecialBytes, max_tokens=16, predict_source=str(file))
    data = make()
    # The pairs are not read.
    data.setup("predict")
    batches = list(data.predict_dataloader())
    # Two short pairs fill the rest of four batches of 16; the shortest come first.
    assert [[source["id"] for source in batch] for batch in batches] == [[0, 3], [5, 2], [4], [1]]
    assert [source["text"] for source in batches[1]] == ["", "ccc"]
    unread = batches[0][1]
    assert unread["text"] is None and "line 4" in unread["problem"]
    ranks = [on_rank(make(), rank, 3) for rank in range(3)]
    for each in ranks:
        each.setup("predict")
    assert [list(each.predict_dataloader()) for each in ranks] == [batches[0::3], batches[1::3], batches[2::3]]
    idle = on_rank(make(), 4, 5)
    idle.setup("predict")
    assert list(idle.predict_dataloader()) == [[]]


def test_prediction_needs_sources(kinds):
    with pytest.raises(ValueError, match="predict needs sources"):
        kinds["CopyTask"]().setup("predict")


@pytest.mark.parametrize("kind", KINDS)
def test_live_objects_are_not_kept(kinds, kind):
    """Live objects are not saved, because a checkpoint that loads with `weights_only=True` cannot hold them."""
    assert not kinds[kind]().hparams
