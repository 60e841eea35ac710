"""Rows of several examples train a language model as each example alone does."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer
from processes_run import QUIET
from tiny_chats import write_chats
from tiny_run import TINY, load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.core.batch import PackedBatch
from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

SMALL = {"dim": 16, "depth": 2, "attention": {"heads": 2}}
MULTI = {"class_path": "MultiTokenPrediction", "init_args": {"num_tokens": 3, "attention": {"heads": 2}}}
DECODERS = {
    "rotary": {},
    "shifted": {"shift": "TokenShift", "attention": {"heads": 2, "position": "ALiBi", "window": 5}},
    "recurrent": {"attention": {"class_path": "GatedDeltaNet", "init_args": {"heads": 2}}},
    "positions": {"embeddings": [{"class_path": "LearnedPositions", "init_args": {"max_length": 64}}]},
    "segmented": {"segments": {"class_path": "SegmentRecurrence", "init_args": {"length": 16}}},
    "experts": {"feedforward": {"class_path": "MixtureOfExperts", "init_args": {"num_experts": 3}}},
}
NAMES = [name for name in DECODERS if name != "experts"]
"""Decoders whose loss is a mean over tokens; experts are balanced over all tokens of a batch."""
EXACT = ("rotary", "shifted", "positions")
"""Decoders that compute each token in the same order, whatever stands in the row."""


def make_model(name, **options):
    made = LanguageModel.from_config({"decoder": {**SMALL, **DECODERS[name]}, **options}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Return rows of several conversations each."""
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    write_chats(tmp_path)
    data = Conversations(str(tmp_path / "chat.jsonl"), validation=0, test=0, template="plain", seq_len=63, batch_size=3)
    data.setup("fit")
    made = next(iter(data.train_dataloader()))
    assert made.documents[:, -1].min() >= 2
    return made


def split_examples(batch):
    """Return the ids of each example, as a row, and which of its predictions count."""
    found = []
    for tokens, scored, documents in zip(*batch, strict=True):
        for number in range(int(documents.max()) + 1):
            (places,) = (documents == number).nonzero(as_tuple=True)
            last = min(int(places[-1]) + 1, len(scored))
            counted = scored[places[0] : last]
            if counted.any():
                found.append((tokens[None, places[0] : last + 1], counted[None]))
    return found


def collect_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def spread(batch):
    """Return the same examples, each in a row."""
    examples = split_examples(batch)
    n = max(scored.shape[1] for _, scored in examples)
    tokens = torch.zeros(len(examples), n + 1, dtype=torch.long)
    scored, documents = torch.zeros(len(examples), n, dtype=torch.bool), torch.ones(len(examples), n, dtype=torch.long)
    for row, (ids, counted) in enumerate(examples):
        tokens[row, : ids.shape[1]], scored[row, : counted.shape[1]] = ids[0], counted[0]
        documents[row, : ids.shape[1]] = 0
    return PackedBatch(tokens, scored, documents)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_and_gradients_are_those_of_the_examples_alone(batch, name):
    model = make_model(name)
    examples = split_examples(batch)
    assert len(examples) >= 9
    packed = model.loss(*model.read_packed(batch))
    count = sum(int(scored.sum()) for _, scored in examples)
    assert count == batch.scored.sum()
    alone = sum(model.loss(tokens, scored) * scored.sum() for tokens, scored in examples) / count
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)
    gradients = collect_gradients(model, packed)
    torch.testing.assert_close(gradients, collect_gradients(model, alone), rtol=0, atol=1e-11)
    assert len(gradients) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["rotary", "experts"])
def test_auxiliary_losses_are_those_of_examples_in_rows(batch, name):
    objective = {"class_path": "NextToken", "init_args": {"z_loss": 0.1, "auxiliaries": [MULTI, "NextEmbedding"]}}
    model = make_model(name, objective=objective)
    losses = [model.loss(*model.read_packed(each)) for each in (batch, spread(batch))]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(collect_gradients(model, loss) for loss in losses), rtol=0, atol=1e-11)


def test_only_responses_are_learned(batch):
    model = make_model("rotary")
    loss, logits = model.loss_with_logits(*model.read_packed(batch))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, batch.scored)
    assert 0 < batch.scored.sum() < batch.scored.numel() / 2


@pytest.mark.parametrize("name", [*NAMES, "experts"])
def test_an_example_does_not_see_its_neighbours(batch, name):
    model = make_model(name).eval()
    before = model.loss_with_logits(*model.read_packed(batch))[1]
    chosen = batch.documents == 1
    changed = batch.tokens.clone()
    changed[:, :-1][chosen] = (changed[:, :-1][chosen] + 7) % 256
    after = model.loss_with_logits(*model.read_packed(batch._replace(tokens=changed)))[1]
    # Experts and chunks compute other tokens in other orders.
    torch.testing.assert_close(before[~chosen], after[~chosen], rtol=0, atol=0 if name in EXACT else 1e-13)
    assert not torch.isclose(before[chosen], after[chosen]).all(dim=-1).any()


CHATS = TINY.replace("class_path: TextFiles", "class_path: Conversations").replace("corpus.txt", "chat.jsonl")
CHATS = CHATS.replace("seq_len: 8, batch_size: 2", "seq_len: 95, batch_size: 2, validation: 0.2")


@pytest.fixture
def chats(tmp_path, monkeypatch):
    """Return a folder with conversations and a config, as the current folder."""
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    write_chats(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CHATS)
    (tmp_path / "asked.txt").write_text("abc\n")
    return tmp_path


@pytest.mark.slow
def test_a_run_resumes_exactly_validates_and_predicts(chats, capsys):
    learned = "tokenizer: {class_path: BPE, init_args: {vocab_size: 280}}"
    (chats / "tiny.yaml").write_text(CHATS.replace("validation: 0.2", f"validation: 0.2, {learned}"))
    assert main(["fit", "-c", "tiny.yaml"]) == 0
    printed = capsys.readouterr()
    assert "30 conversations with" in printed.err + printed.out
    whole = load_weights()
    for options in (["--trainer.max_steps=3", "--name=part"], ["--name=part", "--ckpt_path=last"]):
        assert main(["fit", "-c", "tiny.yaml", *options]) == 0
    for name, weight in load_weights("runs/part/0").items():
        assert torch.equal(weight, whole[name]), name
    rows = [row for row in read_rows() if row["val/loss"]]
    capsys.readouterr()
    assert main(["validate", "runs/tiny/0", "--ckpt_path=last", "--data.eval_batch_size=3"]) == 0
    shown = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(shown["val/loss"]) == pytest.approx(float(rows[-1]["val/loss"]), abs=2e-6)
    assert main(["predict", "runs/tiny/0", "--data.predict_prompts=asked.txt", "--output=out.jsonl"]) == 0
    found = json.loads((chats / "out.jsonl").read_text())
    assert found["prompt"] == "User: abc\nAssistant: " and found["settings"]["stop"] == ["\nUser:"]


def test_evaluation_measures_the_bytes_of_responses(chats):
    assert main(["fit", "-c", "tiny.yaml", "--trainer.max_steps=3"]) == 0
    model = LanguageModel.load_from_checkpoint("runs/tiny/0/checkpoints/last.ckpt", map_location="cpu").eval()
    data = Conversations("chat.jsonl", seq_len=95, validation=0.2)
    data.setup("validate")
    nats = count = 0
    for batch in data.val_dataloader():
        for tokens, scored in split_examples(batch):
            with torch.no_grad():
                nats += float(model.loss(tokens, scored)) * int(scored.sum())
            count += int(scored.sum())
    row = next(row for row in reversed(read_rows()) if row["val/loss"])
    records = [json.loads(line) for line in (chats / "chat.jsonl").read_text().splitlines()][30:38]
    # The stop string of the first response of two counts too.
    size = sum(
        len(each["response"]) if "response" in each else sum(len(m["content"]) for m in each["messages"][1::2]) + 6
        for each in records
    )
    assert count == size + len(records)
    assert float(row["val/loss"]) == pytest.approx(nats / count, rel=1e-5)
    assert float(row["val/bits_per_byte"]) == pytest.approx(nats / size / math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            MaskedLanguageModel,
            "--model MaskedLanguageModel cannot read --data Conversations, which serves responses that follow their "
            "prompts; set --model LanguageModel, or --data TextFiles or other text",
        ),
        (
            Seq2Seq,
            "--model Seq2Seq cannot read --data Conversations, which serves prompts and responses in one text; set "
            "--model LanguageModel, or --data ParallelText with --data.fields '[prompt, response]'",
        ),
    ],
)
def test_models_that_do_not_continue_texts_are_refused(chats, model, message):
    network = {"encoder": SMALL} | ({"decoder": SMALL} if model is Seq2Seq else {})
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        Trainer(max_steps=1, **QUIET).fit(model.from_config(network), Conversations("chat.jsonl"))
    assert str(error.value) == message


def test_a_masked_model_refuses_packed_batches(batch):
    model = MaskedLanguageModel.from_config({"encoder": SMALL})
    with pytest.raises(ValueError, match="MaskedLanguageModel does not read a PackedBatch"):
        model.read_packed(batch)
