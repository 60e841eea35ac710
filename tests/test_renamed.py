"""Old names are refused by a sentence that says the new ones."""

from pathlib import Path

import pytest
import torch
from tiny_run import TINY

from lightning_xt.cli import main
from lightning_xt.system.renamed import RENAMED
from lightning_xt.training.language_model import LanguageModel

OLD = [
    ("generate RUN --length 3", "unknown option '--length'; it is called --max_new_tokens now"),
    ("fit -c tiny.yaml --sampling.length 3", "--sampling.length'; it is called --sampling.max_new_tokens now"),
    ("fit -c tiny.yaml --model.schedule.min_share 0.1", "'min_share'; it is called min_fraction now"),
    ("fit -c tiny.yaml --model.decoder.shift TokenShift --model.decoder.shift.share 0.1", "it is called fraction now"),
    ("fit -c tiny.yaml --model.decoder.attention.position.scaling YaRN", "it is called rope_scaling now"),
    ("fit -c tiny.yaml --standard.validate_at_end null", "it is called --standard.validation_schedule now"),
    ("fit -c tiny.yaml --model.decoder.condition_dim 8", "it is gone: set it in norm"),
    (
        "fit -c tiny.yaml --model.optimizer MuonAdamW --model.optimizer.ns_steps 3",
        "it is gone: set steps in orthogonalizer",
    ),
    ("generate RUN --filters+=Epsilon", "'Epsilon'; it is called EpsilonCutoff now"),
    ("generate RUN --method BeamSearch --method.stochastic true", "choose the method StochasticBeamSearch"),
]


@pytest.mark.parametrize(("command", "part"), OLD)
def test_on_the_command_line(command, part, fresh, capsys):
    assert main(command.split()) == 2
    assert part in capsys.readouterr().err


def test_in_a_config(fresh, capsys):
    Path("old.yaml").write_text(TINY.replace("warmup_steps: 2", "min_share: 0.2"))
    assert main(["fit", "-c", "old.yaml"]) == 2
    sentence = "--model.schedule: unknown option of WarmupCosine 'min_share'; it is called min_fraction now"
    assert sentence in capsys.readouterr().err
    with pytest.raises(
        ValueError, match=r"--model.decoder.shift: unknown option of TokenShift 'share'; it is called fraction now"
    ):
        LanguageModel.from_config({"decoder": {"shift": {"class_path": "TokenShift", "init_args": {"share": 0.5}}}})


def test_in_a_checkpoint(trained, capsys):
    file = Path("runs/tiny/0/checkpoints/best.ckpt")
    content = torch.load(file, weights_only=True)
    schedule = content["hyper_parameters"]["schedule"]["init_args"]
    schedule["min_share"] = schedule.pop("min_fraction")
    torch.save(content, "old.ckpt")
    assert main(["generate", "old.ckpt", "--prompt", "a"]) == 2
    sentence = "--model.schedule: unknown option of WarmupCosine 'min_share'; it is called min_fraction now"
    assert sentence in capsys.readouterr().err


def test_no_option_of_today_is_an_old_name():
    assert not RENAMED.keys() & set(RENAMED.values())
