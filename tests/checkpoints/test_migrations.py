"""Checkpoints of earlier formats.

`format_1.ckpt.gz` was saved by the version before commit de524c8, whose attention had a product for queries and one for
keys and values: a language model after three of five steps, with AdamW and a moving average, and what that version then
computed.
"""

import gzip
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_xt.checkpoints.checkpoint import read_checkpoint
from lightning_xt.checkpoints.migrations import CHECKPOINT_FORMAT, MIGRATIONS, migrate
from lightning_xt.cli import main
from lightning_xt.system.messages import sentence_for
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.checkpoint_io import WholeCheckpoints
from lightning_xt.training.language_model import LanguageModel

QKV = "decoder.stack.sublayers.0_attention.branch.projection.to_{}.weight"
Q, KV, FUSED = QKV.format("q"), QKV.format("kv"), QKV.format("qkv")
FOREIGN_DATA = (
    "ignore:.*does not have many workers",
    "ignore:.*ended before the epoch ended",
    "ignore:You defined a `validation_step`",
    "ignore:.*number of training batches",
)
"""What Lightning says of loaders that are not ours."""


@pytest.fixture
def old(tmp_path):
    file = tmp_path / "old.ckpt"
    file.write_bytes(gzip.decompress(Path(__file__).with_name("format_1.ckpt.gz").read_bytes()))
    return file


def rows():
    """The training samples of that run."""
    return [torch.randint(0, 11, (8,), generator=torch.Generator().manual_seed(n)) for n in range(20)]


def resumed(checkpoint, *plugins, average=True):
    """The model after two more steps."""
    model = LanguageModel.load_from_checkpoint(checkpoint)
    trainer = Trainer(
        max_steps=5,
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ExponentialAverage(0.9)] if average else [],
        plugins=list(plugins),
    )
    trainer.fit(model, DataLoader(rows()[12:], batch_size=4), ckpt_path=checkpoint)
    return model.state_dict()


def of_format_1(**values):
    return {"lightning_xt": {"format": 1, "version": "0.1.0"}, **values}


def test_every_earlier_format_has_its_way():
    assert sorted(MIGRATIONS) == list(range(1, CHECKPOINT_FORMAT))


def test_an_old_model_computes_what_it_did(old):
    expected = torch.load(old, weights_only=True)["expected"]["logits"]
    model = LanguageModel.load_from_checkpoint(old).eval()
    with torch.no_grad():
        logits = model.decoder(torch.arange(22).reshape(2, 11) % 11)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("plugins", [(WholeCheckpoints(),), ()], ids=["ours", "Lightning's"])
@pytest.mark.filterwarnings(*FOREIGN_DATA)
def test_an_old_run_goes_on_as_it_would_have(old, plugins):
    """Optimizer, average and weights: two more steps end where the earlier version ended."""
    content = torch.load(old, weights_only=True)
    expected = content["expected"]["after_two_more"]
    found = resumed(old, *plugins)
    assert found.keys() == {name.replace("to_q.", "to_qkv.") for name in expected if "to_kv." not in name}
    for name, value in found.items():
        parts = [name] if "to_qkv." not in name else [name.replace("qkv", "q"), name.replace("qkv", "kv")]
        torch.testing.assert_close(value, torch.cat([expected[part] for part in parts]), rtol=0, atol=1e-6)
        # A step is far larger.
        assert (value - torch.cat([content["state_dict"][part] for part in parts])).abs().max() > 1e-4


def test_the_fused_weight_holds_both(old):
    before, after = torch.load(old, weights_only=True), read_checkpoint(old)
    for key in ("state_dict", "current_model_state"):
        assert torch.equal(after[key][FUSED], torch.cat([before[key][Q], before[key][KV]]))
        assert not {Q, KV} & after[key].keys()
    own = after["lightning_xt"]
    assert (own["format"], own["migrated_from"]) == (CHECKPOINT_FORMAT, 1)
    assert own["tokenizers"]["text"]["class_path"].endswith(".Bytes")
    assert "tokenizer" not in own


def test_twice_is_once(old):
    content = read_checkpoint(old)
    again = dict(content)
    migrate(again)
    assert again == content


@pytest.mark.parametrize("name", ["sublayers.0_cross_attention.branch.projection", "elsewhere.0_attention"])
def test_cross_attention_keeps_two_products(name):
    weights = {f"decoder.{name}.to_{part}.weight": torch.ones(2, 2) for part in ("q", "kv")}
    content = of_format_1(state_dict=weights)
    migrate(content)
    assert content["state_dict"] == weights


def test_names_of_the_first_versions():
    latent = "decoder.stack.sublayers.0_attention.branch.projection"
    content = of_format_1(
        state_dict={
            f"{latent}.to_q.weight": torch.ones(2, 2),
            f"{latent}.to_latent.to_latent.weight": torch.ones(3, 2),
            "_trained.head.to_logits.weight": torch.ones(1),
        }
    )
    migrate(content)
    assert list(content["state_dict"]) == [f"{latent}.to_q.weight", f"{latent}.to_latent.linear.weight"]


def state(**values):
    group = {"params": [0, 1, 2], "param_names": ["first", Q, KV], "lr": 0.5}
    return {"param_groups": [group], "state": {0: {"step": torch.tensor(3.0)}, 1: values, 2: values}}


def migrated_state(saved):
    content = of_format_1(state_dict={Q: torch.ones(2, 3), KV: torch.ones(2, 3)}, optimizer_states=[saved])
    migrate(content)
    return content["optimizer_states"][0]


def test_the_state_of_an_optimizer_follows():
    found = migrated_state(state(step=torch.tensor(3.0), exp_avg=torch.ones(2, 3)))
    assert found["param_groups"] == [{"params": [0, 1], "param_names": ["first", FUSED], "lr": 0.5}]
    assert found["state"].keys() == {0, 1}
    assert found["state"][1]["step"] == 3
    assert torch.equal(found["state"][1]["exp_avg"], torch.ones(4, 3))


def test_an_optimizer_without_a_state_has_none():
    found = migrated_state({**state(), "state": {}})
    assert found["state"] == {}
    assert found["param_groups"][0]["param_names"] == ["first", FUSED]


@pytest.mark.parametrize(
    "saved",
    [
        state(row_var=torch.ones(2, 1), col_var=torch.ones(1, 3)),
        {**state(), "state": {1: {"step": torch.tensor(3.0)}, 2: {"step": torch.tensor(4.0)}}},
        {**state(), "state": {1: {"step": torch.tensor(3.0)}}},
        {"param_groups": [{"params": [0, 1, 2]}], "state": {}},
    ],
    ids=["sums over rows", "unequal steps", "one state", "no names"],
)
def test_a_state_that_does_not_follow_stays_as_it_is(saved):
    assert migrated_state(saved) is saved


@pytest.mark.filterwarnings(*FOREIGN_DATA)
def test_resuming_with_a_state_that_does_not_follow_names_it(old, tmp_path):
    content = torch.load(old, weights_only=True)
    for each in content["optimizer_states"][0]["state"].values():
        each["row_var"] = torch.ones(1, 1)
    torch.save(content, tmp_path / "odd.ckpt")
    wanted = re.escape(f"such as {KV}") + ".*or begin a run with its weights: --init_from"
    with pytest.raises(ValueError, match=wanted):
        resumed(tmp_path / "odd.ckpt", WholeCheckpoints())


@pytest.mark.parametrize("found", ["1", True, 0, None, 1.5])
def test_a_format_that_is_none(found, tmp_path):
    torch.save({"lightning_xt": {"format": found}}, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=f"has format {found!r}, which is none: they are numbered from 1") as raised:
        read_checkpoint(tmp_path / "odd.ckpt")
    assert sentence_for(raised.value) is not None


@pytest.mark.parametrize(
    "values", [{"state_dict": [1]}, {"optimizer_states": [{}]}, {"state_dict": {Q: 1, KV: 2}}, {"optimizer_states": 5}]
)
def test_contents_that_are_not_of_their_format(values, tmp_path):
    torch.save(of_format_1(**values), tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match="says it has format 1, but its contents are not so") as raised:
        read_checkpoint(tmp_path / "odd.ckpt")
    assert sentence_for(raised.value) is not None


def test_commands_read_old_checkpoints(old, capsys):
    assert main(["info", str(old)]) == 0
    assert "torch 2.13.0+cpu, format 1 (read as 2)" in " ".join(capsys.readouterr().out.split())
    assert main(["generate", str(old), "--prompt", "\1\2", "--max_new_tokens", "3"]) == 0
