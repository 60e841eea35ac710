"""MaskedLanguageModel: training, evaluation, resuming, filling of gaps, and what it refuses."""

import json
import math
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tiny_run import load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.core.packed_documents import find_documents
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel

CONFIG = {
    "encoder": {"dim": 16, "depth": 1, "dropout": 0.2, "attention": {"heads": 2}},
    "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
    "schedule": {"init_args": {"warmup_steps": 2}},
}
QUIET = {
    "log_every_n_steps": 1,
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
}
TINY = """
data:
  class_path: TextFiles
  init_args: {path: corpus.txt, seq_len: 16, batch_size: 2, eval_batch_size: 4}
model:
  class_path: MaskedLanguageModel
  init_args:
    encoder: {dim: 8, depth: 1, dropout: 0.2, attention: {heads: 2}}
    schedule: null
trainer: {max_steps: 4, accelerator: cpu, devices: 1, log_every_n_steps: 1, enable_progress_bar: false}
validate_every: 2
checkpoint_every: 2
"""


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before.*")
        yield


def data(**options):
    return TextFiles("corpus.txt", seq_len=16, batch_size=2, **options)


def build(**options):
    torch.manual_seed(3)
    return MaskedLanguageModel.from_config({**CONFIG, **options})


def fit(model, steps, ckpt_path=None, callbacks=(), **options):
    torch.manual_seed(5 if ckpt_path is None else 99)
    trainer = Trainer(max_steps=steps, callbacks=list(callbacks), **QUIET | options)
    trainer.fit(model, data(), ckpt_path=ckpt_path)
    return trainer


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 3


class RecordMasks(Callback):
    """Records what the network reads in training."""

    def __init__(self):
        self.read = []

    def on_train_start(self, trainer, pl_module):
        network = pl_module.network

        def note(module, args, kwargs):
            if module.training:
                self.read.append(args[0])

        network.register_forward_pre_hook(note, with_kwargs=True)


def test_a_resumed_run_draws_the_masks_of_the_uninterrupted_one(folder):
    whole, drawn = build(), RecordMasks()
    fit(whole, 6, callbacks=[drawn])
    assert len(drawn.read) == 6 and all((each == 256).sum() > 0 for each in drawn.read)
    fit(build(), 6, callbacks=[Stop()]).save_checkpoint("part.ckpt")
    resumed, again = MaskedLanguageModel.load_from_checkpoint("part.ckpt", weights_only=True), RecordMasks()
    fit(resumed, 6, ckpt_path="part.ckpt", callbacks=[again])
    for one, other in zip(drawn.read[3:], again.read, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_loss_of_a_pattern_falls():
    """Rows repeat their first three tokens, so that every hidden token follows from the others."""
    model = build(encoder={"dim": 32, "depth": 2, "attention": {"heads": 2}}, vocab={"target": 11}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = None
    for _ in range(90):
        loss = model.loss(torch.randint(0, 11, (16, 3)).repeat(1, 5))
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first == pytest.approx(math.log(11), rel=0.2)
    assert loss.item() < 0.3 * first


def test_every_parameter_gets_a_gradient():
    model = build()
    model(torch.randint(0, 256, (4, 65))).backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in model.parameters())


@pytest.mark.parametrize("options", [{}, {"eval_batch_size": 7}, {"stride": 5}])
def test_every_validation_measures_the_same(folder, options):
    model = build().double()

    def validate(**more):
        trainer = Trainer(**QUIET, precision="64-true")
        (metrics,) = trainer.validate(model, data(**options | more), verbose=False)
        return metrics

    metrics = validate()
    assert {*metrics} == {"val/loss", "val/perplexity", "val/token_accuracy"}
    torch.manual_seed(9)
    assert validate() == pytest.approx(metrics, rel=1e-6) == validate(eval_batch_size=1)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(metrics["val/loss"]), rel=1e-5)


def test_validation_by_hand(folder):
    """Nats and accuracy of the tokens that evaluation hides, over windows of the split."""
    model, corpus = build().double(), data(validation=0.1)
    (metrics,) = Trainer(**QUIET, precision="64-true").validate(model, corpus, verbose=False)
    text = corpus.splits.validation
    tokens = torch.tensor([int(text[torch.tensor([i]).numpy()][0]) for i in range(len(text))])
    nats, count, right = 0.0, 0, 0
    model.eval()
    for start in range(1, len(tokens), 16):
        window = tokens[start : start + 16]
        # The masks of a window are those of the padded row.
        row = torch.cat((window, torch.zeros(16 - len(window), dtype=torch.long)))[None]
        read, places, targets = model.objective.corrupt(row, torch.arange(16)[None] < len(window))
        scores = model.network(read[:, : len(window)])[0].log_softmax(-1)
        for place, target in zip(places[0].tolist(), targets[0].tolist(), strict=True):
            if target != -100:
                nats, count = nats - scores[place, target].item(), count + 1
                right += scores[place].argmax().item() == target
    assert count > 10
    assert metrics["val/loss"] == pytest.approx(nats / count, rel=1e-6)
    assert metrics["val/token_accuracy"] == pytest.approx(right / count, rel=1e-6)


def test_a_gap_sees_its_own_document_only():
    vocab = {"target": 256, "start": 255, "end": 255, "separator": 255}
    model = build(vocab=vocab).double().eval()
    rows = torch.randint(0, 250, (2, 17))
    rows[:, 9] = 255
    rows[1, :9] = rows[0, :9]
    read = []
    hook = model.network.register_forward_pre_hook(lambda *call: read.append(call[2]["inputs"]), with_kwargs=True)
    model.loss(rows)
    hook.remove()
    assert torch.equal(read[0].documents, find_documents(rows[:, 1:], 255))
    alone = model.network(rows[:1, 1:9])
    together = model.network(rows[:, 1:], inputs=read[0])
    torch.testing.assert_close(together[:, :8], alone.expand(2, -1, -1))


def test_filling_from_python():
    model = build()
    result = model.fill("the [MASK]uick")
    assert result["text"][:4] == "the " and len(result["gaps"][0]) == 5
    both = model.fill(["the [MASK]uick", "[MASK]"], candidates=2)
    assert both[0]["text"] == result["text"] and [len(gap) for each in both for gap in each["gaps"]] == [2, 2]
    with pytest.raises(TypeError, match="a text was expected"):
        model.fill(3)
    assert not model.network.training or model.training


def test_it_generates_nothing():
    message = r"^a MaskedLanguageModel fills gaps and continues no text; give predict prompts with \[MASK\]"
    with pytest.raises(ValueError, match=message):
        build().generate("the")
    with pytest.raises(ValueError, match=message):
        _ = build().text_generator


def test_bf16_and_compiling_train(folder):
    model = build(compile={"backend": "eager", "disable": True})
    fit(model, 3, precision="bf16-mixed")
    assert not any("_orig_mod" in name for name in model.state_dict())


def test_a_batch_that_it_cannot_read_is_refused():
    with pytest.raises(ValueError, match=r"^tokens has token 256, outside the vocabulary of 0 to 255"):
        build()(torch.full((2, 9), 256))


def test_the_command_line_trains_resumes_evaluates_and_fills(folder, capsys):
    (folder / "masked.yaml").write_text(TINY)
    assert main(["fit", "-c", "masked.yaml"]) == 0
    out = capsys.readouterr().out
    assert "fill gaps:   lightning-xt predict runs/masked/0 --data.predict_prompts" in out
    values = dict(line.split("=") for line in out.splitlines() if line.startswith("val/"))
    assert {*values} == {"val/loss", "val/perplexity", "val/token_accuracy"}
    assert [row["step"] for row in read_rows("runs/masked/0")] == ["1", "2", "3", "4"]
    samples = (folder / "runs/masked/0/samples.txt").read_text()
    assert samples.count("prompt  import [MASK]s\nfilled  import ") == 2
    whole = load_weights("runs/masked/0")
    for options in (["--trainer.max_steps=2", "--name=part"], ["--name=part", "--ckpt_path=last"]):
        assert main(["fit", "-c", "masked.yaml", *options]) == 0
    for name, weight in load_weights("runs/part/0").items():
        assert torch.equal(weight, whole[name]), name
    found = []
    for _ in range(2):
        capsys.readouterr()
        assert main(["validate", "runs/masked/0"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    (folder / "gaps.txt").write_text("the [MASK]uick\nbr[MASK]wn f[MASK]x\n")
    predict = ["predict", "runs/masked/0", "--data.predict_prompts=gaps.txt", "--output=out.jsonl"]
    assert main([*predict, "--sampling.top_k=2"]) == 0
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [len(each["gaps"]) for each in lines] == [1, 2] and len(lines[0]["gaps"][0]) == 2
    assert {*lines[0]["gaps"][0][0]} == {"text", "token", "probability"}
    assert "prompts reach" not in capsys.readouterr().err
    assert main(["info", "runs/masked/0", "--tree"]) == 0
    assert "MaskedTokens: fraction 0.15" in capsys.readouterr().out


REFUSED = "a MaskedLanguageModel fills gaps and continues no text; give predict prompts with [MASK]"


def test_the_command_line_refuses_what_it_cannot_do(folder, capsys):
    (folder / "masked.yaml").write_text(TINY)
    (folder / "prompts.txt").write_text("fox\n")
    assert main(["fit", "-c", "masked.yaml", "--trainer.max_steps=1", "--sample_text=null"]) == 0
    capsys.readouterr()
    predict = ["predict", "runs/masked/0", "--data.predict_prompts=prompts.txt", "--output=out.jsonl"]
    for args, sentence in (
        (["generate", "runs/masked/0", "--prompt=the"], REFUSED),
        (["generate", "runs/masked/0", "--prompt=the", "--method=BeamSearch"], REFUSED),
        (["generate", "runs/masked/0", "--interactive"], REFUSED),
        ([*predict, "--inference.weights=int8"], REFUSED),
        (predict, "the prompt 'fox' has no gap to fill; put [MASK] in the place of a token"),
        ([*predict, "--sampling.temperature=0.5"], "sampling: temperature is for generation, but gaps are filled with"),
        (["fit", "-c", "masked.yaml", "--sample_text.prompts=[fox]"], "the prompt 'fox' has no gap to fill"),
        (["fit", "-c", "masked.yaml", "--data=CopyTask"], "--model MaskedLanguageModel cannot read --data CopyTask"),
    ):
        assert main(args) == 2, args
        assert sentence in capsys.readouterr().err


def test_other_objectives_are_refused(folder):
    with pytest.raises(ValueError, match=r"^--model\.objective: NextToken is for another model; omit it, or choose"):
        MaskedLanguageModel.from_config({**CONFIG, "objective": "NextToken"})
    assert LanguageModel.no_generation is None
