"""A user's own datasets and loaders, named in YAML."""

import random
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tiny_run import read_rows
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_xt.cli import main
from lightning_xt.data.custom_data import CustomData

MINE = '''
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset


class Rows(Dataset):
    """Rows of ids that depend on their number."""

    def __init__(self, count: int = 12, size: int = 7, pairs: bool = False) -> None:
        self.count, self.size, self.pairs = count, size, pairs

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        row = (torch.arange(self.size) * (number + 1)) % 9 + 2
        return (row, torch.cat([torch.ones(1, dtype=torch.long), row])) if self.pairs else row


class Stream(IterableDataset):
    def __iter__(self):
        return iter([Rows()[number] for number in range(12)])


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.stack([Rows()[number] for number in range(12)])), batch_size=3)


def text() -> Dataset:
    return "text"
'''
CONFIG = {
    "data": {"class_path": "CustomData", "init_args": {"train_set": "my_data.Rows", "validation_set": "my_data.Rows"}},
    "model": {
        "class_path": "LanguageModel",
        "init_args": {"decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}}, "schedule": None},
    },
    "trainer": {
        "max_steps": 5,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "my_data", raising=False)
    return tmp_path


def write(**options):
    config = {name: dict(value) for name, value in CONFIG.items()}
    config["data"]["init_args"] = {**CONFIG["data"]["init_args"], "vocab": {"target": 11}, "batch_size": 4, **options}
    Path("mine.yaml").write_text(yaml.safe_dump(config))


def items(count=10):
    return TensorDataset(torch.arange(count)[:, None].expand(count, 3))


def data(train=items, **options):
    return CustomData(train, vocab={"target": 11}, batch_size=4, **options)


def test_a_dataset_is_named_and_resumes_exactly(folder, capsys):
    write()
    assert main(["fit", "-c", "mine.yaml"]) == 0
    assert read_rows("runs/mine/0")[-1]["val/loss"]
    assert main(["fit", "-c", "mine.yaml", "--trainer.max_steps", "3", "--name", "cut"]) == 0
    resumed = ["fit", "-c", "runs/cut/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "5"]
    assert main(resumed) == 0
    losses = [
        [row["train/loss"] for row in read_rows(f"runs/{name}/0") if row["train/loss"]] for name in ("mine", "cut")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 5
    capsys.readouterr()
    assert main(["generate", "runs/mine", "--prompt", "2 3", "--max_new_tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("2 3")


def test_a_loader_is_named(folder, capsys):
    write(train_set="my_data.loader", validation_set="my_data.Stream")
    assert main(["fit", "-c", "mine.yaml"]) == 0
    assert len([row for row in read_rows("runs/mine/0") if row["train/loss"]]) == 5
    assert main(["validate", "-c", "runs/mine/0/config.yaml", "--ckpt_path", "best"]) == 0
    assert "val/loss=" in capsys.readouterr().out


def test_pairs_are_read_by_a_translator(folder):
    source = {"class_path": "my_data.Rows", "init_args": {"pairs": True}}
    write(train_set=source, validation_set=source, vocab={"source": 11, "target": 11, "pad": 0, "start": 1})
    network = "{dim: 16, depth: 1, attention: {heads: 2}}"
    model = ["--model", "Seq2Seq", "--model.encoder", network, "--model.decoder", network]
    assert main(["fit", "-c", "mine.yaml", *model]) == 0
    assert read_rows("runs/mine/0")[-1]["val/exact_match"]


def test_a_class_that_is_not_data_is_refused(folder, capsys):
    write(train_set="my_data.text")
    assert main(["fit", "-c", "mine.yaml"]) == 2
    assert "--data.train_set gives a str; it must be a Dataset or a DataLoader of torch" in capsys.readouterr().err


def test_every_epoch_has_each_item_once_in_another_order():
    batches = iter(data().train_dataloader())
    seen = torch.cat([next(batches)[0][:, 0] for _ in range(5)]).tolist()
    assert Counter(seen) == Counter([*range(10)] * 2)
    assert seen[:10] != seen[10:] != [*range(10)]
    again = data()
    again.load_state_dict({"samples_seen": 12})
    assert next(iter(again.train_dataloader()))[0][:, 0].tolist() == seen[12:16]


class Noisy(Dataset):
    """Items of the number, of what each generator draws, and of the thread that reads it."""

    def __len__(self):
        return 10

    def __getitem__(self, number):
        drawn = [torch.randint(999, ()), np.random.randint(999), random.randrange(999)]
        return torch.tensor([number, *drawn, threading.current_thread() is threading.main_thread()])


def test_random_numbers_of_a_dataset_are_those_of_the_item():
    states = torch.get_rng_state(), random.getstate()
    batches = iter(data(Noisy, validation_set=Noisy).train_dataloader())
    seen = torch.cat([next(batches) for _ in range(5)])
    for each in (data(Noisy).for_process(1, 2), data(Noisy)):
        each.load_state_dict({"samples_seen": 8})
        first = 12 if each.rank_and_world[0] else 8
        torch.rand(7)
        assert torch.equal(next(iter(each.train_dataloader())), seen[first : first + 4])
    # The second epoch draws others for an item.
    assert len({tuple(row[1:4].tolist()) for row in seen}) == 20
    assert seen[:, 4].all()
    found = [torch.cat(list(data(Noisy, validation_set=Noisy).val_dataloader())) for _ in range(2)]
    assert torch.equal(*found) and len(found[0]) == 10
    torch.set_rng_state(states[0])
    next(batches)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_overfitting_repeats_the_batches():
    total = SimpleNamespace(processed=0)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
    overfitting = data()
    overfitting.trainer = SimpleNamespace(
        overfit_batches=2,
        distributed_sampler_kwargs={"rank": 0, "num_replicas": 1},
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=loop,
    )
    batches = overfitting.train_dataloader()
    first = next(iter(batches))[0]
    total.processed = 2
    assert overfitting.samples_seen == 8
    assert torch.equal(next(iter(batches))[0], first)


def test_sets_without_an_item_for_each_process_are_refused():
    with pytest.raises(ValueError, match=r"^--data.train_set has no items; give at least one$"):
        data(lambda: items(0)).train_dataloader()
    with pytest.raises(ValueError, match=r"^--data.validation_set has no items; give at least one$"):
        data(validation_set=lambda: items(0)).val_dataloader()
    message = r"^--data.test_set has 1 item for 2 processes, which need one each; .* with --trainer.devices 1$"
    with pytest.raises(ValueError, match=message):
        data(test_set=lambda: items(1)).for_process(0, 2).test_dataloader()


def test_options_that_would_serve_other_batches_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    message = r"^--data.num_workers 2 would read --data.train_set, .*; set --data.num_workers 0, or give a DataLoader"
    with pytest.raises(ValueError, match=message):
        data(Stream, num_workers=2).train_dataloader()
    with pytest.raises(ValueError, match=r"--data.eval_batch_size 0, which must be at least 1$"):
        data(eval_batch_size=0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_for_a_gpu_are_pinned(device, monkeypatch):
    monkeypatch.setattr(CustomData, "_device", torch.device(device))
    assert data().train_dataloader().batches.pin_memory == (device == "cuda")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_processes_split_the_items(split):
    parts = [data(validation_set=items).for_process(rank, 2) for rank in range(2)]
    if split == "train":
        first, second = (next(iter(part.train_dataloader()))[0][:, 0].tolist() for part in parts)
        batches = iter(data().train_dataloader())
        assert first + second == [int(row[0]) for _ in range(2) for row in next(batches)[0]]
        assert parts[0].samples_after(3, 5) == 3 + 5 * 8
    else:
        found = [row for part in parts for batch in part.val_dataloader() for row in batch[0][:, 0].tolist()]
        assert sorted(found) == [*range(10)]


def test_a_loader_cannot_be_split():
    part = data(lambda: DataLoader(items(), 2)).for_process(0, 2)
    with pytest.raises(ValueError, match="has no numbered items, so it cannot be split over 2 processes"):
        part.train_dataloader()
    assert part.samples_after(3, 5) == 8


def test_a_loader_that_begins_again_is_reported(caplog):
    resumed = data(lambda: DataLoader(items(), 2))
    resumed.load_state_dict({"samples_seen": 3})
    with caplog.at_level("INFO"):
        assert len(resumed.train_dataloader()) == 5
    assert "--data.train_set has no numbered items: it begins again" in caplog.text


def test_missing_parts_are_named():
    with pytest.raises(ValueError, match=r"--data CustomData has no test data; set --data\.test"):
        data().test_dataloader()
    with pytest.raises(ValueError, match="has no prompts; use lightning-xt generate RUN --prompts FILE"):
        data().predict_dataloader()
    with pytest.raises(ValueError, match=r"--data\.vocab needs the number of different tokens"):
        CustomData(items, vocab={"pad": 0})
    assert data().val_dataloader() == []


def test_texts_are_bytes_or_numbers():
    assert CustomData(items, vocab={"target": 256}).tokenizer.encode("a") == [97]
    assert data().tokenizer.encode("5 3") == [5, 3]
