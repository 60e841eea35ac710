"""Models called directly, and trained by a plain Trainer on custom loaders."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_xt import LanguageModel, Seq2Seq
from lightning_xt.training.batches import number_pairs, read_pairs, read_tokens
from lightning_xt.training.callbacks.throughput import Throughput

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*number of training batches")

NETWORK = {"dim": 16, "depth": 1, "attention": {"heads": 2}}
VOCAB = {"source": 11, "target": 13, "pad": 0, "start": 1, "end": None}


def randomize(model):
    """Randomize a model: heads and outputs begin at zero, which would hide their inputs."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def language_model():
    return LanguageModel.from_config(
        {"decoder": NETWORK, "vocab": {"target": 11}, "schedule": {"class_path": "Constant"}}
    )


def translator():
    return randomize(Seq2Seq.from_config({"encoder": NETWORK, "decoder": NETWORK, "vocab": VOCAB}))


def pairs(rows=6):
    src, tgt = torch.randint(2, 11, (rows, 5)), torch.randint(2, 13, (rows, 4))
    tgt[:, 0], tgt[0, 3] = 1, 0
    mask = torch.ones_like(src, dtype=torch.bool)
    mask[1, 3:] = False
    return src, tgt, mask


def fit(model, train, validation, **options):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Throughput()],
        **options,
    )
    trainer.fit(model, train, validation)
    return trainer


def test_a_called_language_model_gives_its_loss():
    model, tokens = language_model(), torch.randint(11, (3, 7))
    model(tokens).backward()
    assert model.decoder.token_embedding.weight.grad is not None
    assert torch.equal(model(tokens), model.loss(tokens))
    scored = torch.arange(6).expand(3, 6) < 2
    assert torch.equal(model(tokens, scored), model.loss(tokens, scored))


def test_a_called_translator_gives_its_loss():
    model, (src, tgt, mask) = translator(), pairs()
    model(src, tgt, mask=mask).backward()
    assert model.network.encoder.token_embedding.weight.grad is not None
    assert torch.equal(model(src, tgt, mask=mask), model.loss(src, tgt, mask))
    assert torch.equal(model(src, tgt), model.loss(src, tgt))
    assert not torch.equal(model(src, tgt), model(src, tgt, mask))


def test_a_language_model_generates():
    model, prompt = language_model(), torch.randint(11, (3, 4))
    greedy = model.generate(prompt, 5, temperature=0)
    assert greedy.shape == (3, 5)
    assert torch.equal(greedy[:, 0], model.decoder(prompt)[:, -1].argmax(-1))
    assert torch.equal(model.generate(prompt, 5, seed=3), model.generate(prompt, 5, seed=3))
    short = model.generate(prompt, 5, lengths=torch.tensor([4, 2, 3]), temperature=0)
    assert torch.equal(short[1], model.generate(prompt[1:2, :2], 5, temperature=0)[0])


def test_a_language_model_continues_texts():
    model = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1}})
    text = model.generate("ab", 5, temperature=0)
    ids = model.generate(torch.tensor([[97, 98]]), 5, temperature=0)
    assert text == model.tokenizer.decode(ids[0].tolist())
    assert model.generate(["ab", "c"], 5, temperature=0) == [text, model.generate("c", 5, temperature=0)]
    with pytest.raises(ValueError, match="prompt 2 is empty"):
        model.generate(["a", ""])
    for wrong in (7, b"ab", [97, 98], [[97, 98]], None):
        with pytest.raises(
            TypeError, match=r"^a text was expected, or a list of texts, .* ids as a tensor to generate$"
        ):
            model.generate(wrong)


def test_a_plain_trainer_trains_and_validates_a_language_model():
    model, tokens = language_model(), torch.randint(11, (8, 6))
    trainer = fit(model, DataLoader(TensorDataset(tokens), 4), DataLoader(TensorDataset(tokens), 3), max_epochs=2)
    assert trainer.global_step == 4
    expected = model.eval()(tokens).item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-6)
    # A loader of plain tensors works too.
    metrics = trainer.validate(model, DataLoader(tokens, 5), verbose=False)[0]
    assert metrics["val/loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_plain_trainer_trains_and_validates_a_translator(parts):
    model, data = translator(), TensorDataset(*pairs()[:parts])
    trainer = fit(model, DataLoader(data, 2), DataLoader(data, 4), max_epochs=2)
    assert trainer.global_step == 6
    metrics = trainer.callback_metrics
    assert metrics["val/loss"].item() == pytest.approx(model.eval()(*data.tensors).item(), rel=1e-6)
    assert 0 <= metrics["val/exact_match"] <= 1
    # Every row is decoded, and the first eight are shown.
    assert [pair.number for pair in model._scores.pairs] == [0, 1, 2, 3, 4, 5]
    assert model._scores.sums[3] == 6


def test_rows_of_several_processes_are_numbered_as_they_are_dealt():
    batch = read_pairs(pairs(3), VOCAB)
    assert number_pairs(batch, 2, SimpleNamespace(global_rank=1, world_size=4)).index.tolist() == [9, 13, 17]


def test_a_target_that_is_ignored_is_a_token_of_the_vocabulary():
    assert read_tokens(torch.tensor([[3, -100]]), 11).tolist() == [[3, -100]]


def test_a_schedule_needs_an_end():
    loader = DataLoader(torch.randint(11, (8, 6)), 4)
    with pytest.raises(ValueError, match="max_steps is -1, but the learning rate's schedule needs the length"):
        fit(language_model(), loader, loader, max_epochs=-1)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"input_ids": torch.ones(2, 3)}, "tokens is of type dict"),
        ("text", "tokens is of type str"),
        ([torch.ones(2, 3), torch.ones(2, 3)], "tokens is a list of 2"),
        (torch.ones(2, 3), r"tokens is a tensor of float32 and shape \(2, 3\)"),
        (torch.ones(2, 3, dtype=torch.bool), r"tokens is a tensor of bool and shape \(2, 3\)"),
        (torch.ones(3, dtype=torch.long), r"tokens is a tensor of int64 and shape \(3,\)"),
        (torch.ones(3, 1, dtype=torch.long), r"tokens is a tensor of int64 and shape \(3, 1\)"),
    ],
)
def test_a_language_model_is_given_something_else(batch, said):
    rule = "; a language model reads token ids, an integer tensor"
    with pytest.raises(ValueError, match=said + rule):
        language_model()(batch)
    with pytest.raises(ValueError, match=said + rule):
        language_model().evaluate(batch)


@pytest.mark.parametrize("token", [11, -1])
def test_a_token_outside_the_vocabulary(token):
    with pytest.raises(ValueError, match=f"tokens has token {token}, outside the vocabulary of 0 to 10"):
        language_model()(torch.tensor([[2, token]]))
    src, tgt, mask = pairs()
    with pytest.raises(ValueError, match="src has token 12, outside the vocabulary of 0 to 10"):
        translator()(src.fill_(12), tgt, mask)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda src, tgt, mask: src, "a batch is a tensor of int64"),
        (lambda src, tgt, mask: [src], "a batch is a list of 1"),
        (lambda src, tgt, mask: {"src": src}, "a batch is of type dict"),
        (lambda src, tgt, mask: (src.float(), tgt), "src is a tensor of float32"),
        (lambda src, tgt, mask: (src, tgt[:, 0]), "tgt is a tensor of int64 and shape .6,."),
        (lambda src, tgt, mask: (src, tgt, mask.long()), "src_mask is a tensor of int64"),
        (
            lambda src, tgt, mask: (src, tgt, mask[:, :2]),
            "src_mask is a tensor of bool and shape .6, 2.",
        ),
    ],
)
def test_a_translator_is_given_something_else(change, said):
    with pytest.raises(ValueError, match=said + r".*; a Seq2Seq reads \(src, tgt\) or \(src, tgt, src_mask\)"):
        translator().training_step(change(*pairs()), 0)


def test_a_translator_is_given_sources_without_their_targets():
    src, tgt, _ = pairs()
    with pytest.raises(ValueError, match="src has 6 rows and tgt 5; give each source its target"):
        translator()(src, tgt[:5])


def test_cases_d6_targets_without_padding_are_learned_whole():
    """Every target token counts if id 0 is a symbol and pad is null, in training and in evaluation."""
    model = randomize(Seq2Seq.from_config({"encoder": NETWORK, "decoder": NETWORK, "vocab": {**VOCAB, "pad": None}}))
    src, tgt = torch.tensor([[3, 0, 5]]), torch.tensor([[1, 3, 0, 5, 0]])
    logits = model.network(src, tgt[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tgt[:, 1:])
    torch.testing.assert_close(model(src, tgt), expected)
    with pytest.raises(ValueError, match=r"^target 0 has the padding id 0 at place 2, .*; set vocab.pad to an id that"):
        translator()(src, tgt)
    # A T5 decoder starts with its padding id; ids of -100 are those that the user has masked.
    read_pairs((src, torch.tensor([[0, 3, 4, 0, 0]]), None), VOCAB)
    read_pairs((src, torch.tensor([[1, 3, 0, -100, -100]]), None), VOCAB)
    with pytest.raises(ValueError, match="at place 2"):
        read_pairs((src, torch.tensor([[1, 3, 0, -100, 4]]), None), VOCAB)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"class_path": "NextToken", "init_args": {"label_smoothing": 0.1}}, "label_smoothing 0.1"),
        ({"class_path": "ForgetfulNextToken"}, "hidden tokens (max_fraction 0.15)"),
        ({"class_path": "NextToken"}, None),
    ],
)
def test_cases_n11_a_loss_of_training_only_is_reported(caplog, objective, said):
    config = {
        "decoder": NETWORK,
        "vocab": {"target": 11},
        "schedule": {"class_path": "Constant"},
        "objective": objective,
    }
    with caplog.at_level("INFO"):
        rows = DataLoader(torch.randint(11, (4, 7)))
        fit(LanguageModel.from_config(config), rows, rows, max_steps=1)
    found = [each for each in caplog.messages if each.startswith("train/loss includes")]
    expected = f"train/loss includes {said}, which val/loss does not; compare it with train/loss of other runs only"
    assert found == ([] if said is None else [expected])
