"""Objectives with parameters: trained, logged, saved, resumed, and ignored by decoding."""

import warnings

import pytest
import torch
from tiny_run import TINY, load_weights, read_rows
from torch import nn

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq
from lightning_xt.training.strategies.sharding import refuse_parameters

HEADS = {"class_path": "MultiTokenPrediction", "init_args": {"num_tokens": 3, "attention": {"heads": 2}}}
OBJECTIVE = {"class_path": "NextToken", "init_args": {"z_loss": 0.01, "auxiliaries": [HEADS, "NextEmbedding"]}}
SIZES = {"dim": 16, "depth": 1, "attention": {"heads": 2}}
FLAG = (
    "--model.objective={class_path: NextToken, init_args: {z_loss: 0.01, auxiliaries: [NextEmbedding, "
    "{class_path: MultiTokenPrediction, init_args: {num_tokens: 3, attention: {heads: 2}}}]}}"
)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def test_a_run_logs_saves_resumes_and_decodes(folder, capsys):
    (folder / "tiny.yaml").write_text(TINY.replace("schedule: {init_args: {warmup_steps: 2}}", "schedule: null"))
    assert main(["fit", "-c", "tiny.yaml", FLAG]) == 0
    rows = [row for row in read_rows("runs/tiny/0") if row["train/loss"]]
    for name in ("train/multi_token", "train/next_embedding", "train/logit_z_loss"):
        assert all(float(row[name]) > 0 for row in rows), name
    whole = load_weights()
    assert {name.split(".")[2] for name in whole if name.startswith("objective.")} == {"0", "1"}
    for options in (["--trainer.max_steps=3", "--name=part"], ["--name=part", "--ckpt_path=last"]):
        assert main(["fit", "-c", "tiny.yaml", FLAG, *options]) == 0
    for name, weight in load_weights("runs/part/0").items():
        assert torch.equal(weight, whole[name]), name
    capsys.readouterr()
    assert main(["generate", "runs/tiny/0", "--prompt=the", "--max_new_tokens=4", "--temperature=0"]) == 0
    completion = capsys.readouterr().out
    # A run without the auxiliaries begins with the weights of the network alone, and the reverse.
    plain = ["fit", "-c", "tiny.yaml", "--name=plain", "--init_from=runs/tiny/0", "--trainer.max_steps=1"]
    assert main([*plain, "--model.optimizer.lr=0"]) == 0
    begun = load_weights("runs/plain/0")
    assert {name for name in whole if not name.startswith("objective.")} == begun.keys()
    assert main(["generate", "runs/plain/0", "--prompt=the", "--max_new_tokens=4", "--temperature=0"]) == 0
    assert capsys.readouterr().out.endswith(completion)
    again = ["fit", "-c", "tiny.yaml", "--name=again", "--init_from=runs/plain/0", "--trainer.max_steps=1", FLAG]
    assert main(again) == 0
    assert load_weights("runs/again/0").keys() == whole.keys()


def test_the_loss_of_evaluation_is_that_of_the_network():
    torch.manual_seed(0)
    plain = LanguageModel.from_config({"decoder": SIZES})
    rich = LanguageModel.from_config({"decoder": SIZES, "objective": OBJECTIVE})
    rich.decoder.load_state_dict(plain.decoder.state_dict())
    tokens = torch.randint(0, 256, (2, 9))
    assert torch.equal(rich.eval().loss(tokens), plain.eval().loss(tokens))
    assert rich.train().loss(tokens) > plain.train().loss(tokens)
    loss, logits = rich.loss_with_logits(tokens)
    assert torch.equal(loss, rich.loss(tokens)) and torch.equal(logits, rich.decoder(tokens[:, :-1]))


def test_an_encoder_decoder_has_them_too():
    torch.manual_seed(0)
    model = Seq2Seq.from_config({"encoder": SIZES, "decoder": SIZES, "objective": OBJECTIVE})
    src, tgt = torch.randint(3, 259, (2, 5)), torch.randint(3, 259, (2, 8))
    tgt[:, 0] = 1
    tgt[1, 5:] = 0
    terms = model._score(src, tgt, None).terms
    assert {*terms} == {"multi_token", "next_embedding", "logit_z_loss"}
    # Padding is not predicted: other padding changes nothing.
    longer = torch.cat((tgt, torch.zeros(2, 3, dtype=torch.long)), dim=1)
    for name, value in model._score(src, longer, None).terms.items():
        torch.testing.assert_close(value, terms[name])
    model.loss(src, tgt).backward()
    assert all(each.grad is not None for each in model.objective.parameters())


def test_an_objective_for_another_model_is_refused():
    with pytest.raises(
        ValueError, match=r"^objective: MaskedTokens needs a model with a mask token; set --model Masked"
    ):
        LanguageModel.from_config({"decoder": SIZES, "objective": "MaskedTokens"})


def test_parameters_are_not_sharded():
    refuse_parameters(nn.Identity())
    with pytest.raises(
        ValueError, match=r"^--trainer.strategy FSDP2 shards the network only, but the objective, NextTok"
    ):
        refuse_parameters(LanguageModel.from_config({"decoder": SIZES, "objective": OBJECTIVE}).objective)


def test_an_objective_without_logits_is_named():
    model = LanguageModel.from_config({"decoder": SIZES})
    whole = model.objective.forward
    model.objective.forward = lambda *args: type(found := whole(*args))(found.mean, found.total, found.count)
    with pytest.raises(ValueError, match=r"^objective: NextToken keeps no logits; set them in its Loss"):
        model.loss_with_logits(torch.randint(0, 256, (2, 9)))
