"""Several processes train layers that are computed again, passes that are drawn, and rows that drop sublayers."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from processes_run import QUIET, run_in_processes
from tiny_run import write_inputs

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.strategies.fsdp2 import FSDP2

pytestmark = pytest.mark.filterwarnings("ignore:.*FSDP2-wrapped module .* returned a view tensor:UserWarning")
DECODER = {
    "dim": 10,
    "depth": 3,
    "dropout": 0.1,
    "attention": {"heads": 2, "value_mods": ["ValueResidual"], "z_loss": 0.01},
    "scale": {"class_path": "StochasticDepth", "init_args": {"last_fraction": 0.5}},
    "passes": {"class_path": "Recycling", "init_args": {"passes": 3}},
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "FSDP2"])
def test_drawn_depth_and_checkpointed_layers_in_two_processes(strategy, tmp_path, monkeypatch):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def train(checkpoint_layers: bool | int) -> Any:
        torch.manual_seed(0)
        model = LanguageModel.from_config({"decoder": {**DECODER, "checkpoint_layers": checkpoint_layers}}).double()
        passes: list[int] = []
        model.decoder.stack.sublayers["0_attention"].register_forward_pre_hook(lambda *_: passes.append(1))
        data = TextFiles("corpus.txt", seq_len=8, batch_size=4, eval_batch_size=3)
        chosen: Any = FSDP2() if strategy == "FSDP2" else strategy
        trainer = Trainer(max_steps=6, strategy=chosen, devices=2, limit_val_batches=0, **QUIET)
        trainer.fit(model, data)
        return trainer.strategy.lightning_module_state_dict(), len(passes)

    (plain, first), (_, second) = run_in_processes(lambda: train(False), 2, tmp_path)
    assert first == second > 6, "processes drew different numbers of passes"
    (checkpointed, _), _ = run_in_processes(lambda: train(True), 2, tmp_path)
    (partly, _), _ = run_in_processes(lambda: train(2), 2, tmp_path)
    assert plain.keys() == checkpointed.keys() and plain
    for name, weight in plain.items():
        assert math.isfinite(weight.sum())
        assert torch.equal(weight, checkpointed[name]) and torch.equal(weight, partly[name]), name
