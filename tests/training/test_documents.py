"""Documents in one row are read as if each had a row."""

import pytest
import torch

from lightning_xt.core.cache import Cache
from lightning_xt.core.packed_documents import find_documents
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.training.language_model import LanguageModel

SEPARATOR = 255


def model(vocab, **decoder):
    small = {"dim": 16, "depth": 2, "attention": {"heads": 2}, **decoder}
    made = LanguageModel.from_config({"decoder": small, "vocab": vocab}).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    for name, text in {"a": "one fish", "b": "two", "c": "red fish, blue fish"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return TextFiles(str(tmp_path / "*.txt"), documents="separator", seq_len=7, validation=0)


def test_a_separator_opens_a_document():
    tokens = torch.tensor([[3, 4, 9, 5, 6, 7, 9, 8], [9, 9, 1, 1, 1, 1, 1, 9]])
    assert find_documents(tokens, 9).tolist() == [[0, 0, 1, 1, 1, 1, 2, 2], [1, 2, 2, 2, 2, 2, 2, 3]]


def test_the_loss_of_a_row_is_that_of_its_documents(data):
    rows = [[SEPARATOR, *b"one fish"], [SEPARATOR, *b"two"], [SEPARATOR, *b"red"]]
    packed = torch.tensor([[token for row in rows for token in row]])
    network = model(data.vocab)
    apart = network.loss(packed)
    # Each document predicts its own end: the separator of the next.
    alone = [torch.tensor([[*row, SEPARATOR]]) for row in rows[:-1]] + [torch.tensor([rows[-1]])]
    counts = [row.shape[1] - 1 for row in alone]
    expected = sum(network.loss(row) * count for row, count in zip(alone, counts, strict=True)) / sum(counts)
    assert sum(counts) == packed.shape[1] - 1
    assert torch.isclose(apart, expected, atol=1e-12)
    # Without a separator in the vocabulary, the row is one text.
    joined = model({**data.vocab, "separator": None})
    joined.load_state_dict(network.state_dict())
    assert not torch.isclose(joined.loss(packed), expected, atol=1e-6)


def test_a_batch_has_the_shape_it_always_has(data):
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (16, 8)
    assert (batch == SEPARATOR).any()


def test_forgetting_and_documents_go_together(data):
    options = {"decoder": {"dim": 16, "depth": 1, "attention": {"heads": 2}}, "vocab": data.vocab}
    network = LanguageModel.from_config({**options, "objective": "ForgetfulNextToken"}).double()
    tokens = torch.tensor([[SEPARATOR, 1, 2, 3, SEPARATOR, 4, 5]])
    changed = tokens.clone()
    changed[0, 1] = 9
    scored = torch.tensor([[False] * 4 + [True] * 2])
    losses = []
    for row in (tokens, changed):
        torch.manual_seed(0)
        losses.append(network.loss(row, scored))
    assert losses[0] == losses[1]


class Scripted(torch.nn.Module):
    """Model that continues any prompt with given ids, and records its inputs."""

    max_length = None
    recurrences = ()
    vocab_size = 256

    def __init__(self, ids):
        super().__init__()
        self.ids, self.given = list(ids), []
        self.token_embedding = torch.nn.Embedding(1, 1)

    def new_cache(self, batch, capacity, **options):
        return Cache(batch, capacity, calls=1)

    def forward(self, tokens, *, lengths=None, inputs=None, cache=None, last_only=False):
        self.given += tokens[0].tolist()
        return torch.nn.functional.one_hot(torch.tensor([[self.ids.pop(0)]]), 256).double()


def continue_prompt(network, tokenizer, prompt, sampling):
    """Return the ids that follow a prompt, up to the end of the text or `max_new_tokens`."""
    completer = TextCompleter(network, tokenizer, torch.device("cpu"))
    drawn = completer.open_session(sampling).stream_tokens([completer.build_request(prompt, sampling)])
    return (each.token for each in drawn if each.token != tokenizer.end)


def test_a_text_begins_with_the_separator_and_ends_before_it():
    network = Scripted([*b"ab", SEPARATOR, *b"cd"]).train()
    sampling = GenerationOptions(max_new_tokens=5, temperature=0)
    assert bytes(continue_prompt(network, Bytes(separator=SEPARATOR), "x", sampling)) == b"ab"
    assert network.given == [SEPARATOR, *b"xab"]
    assert network.training
    network = Scripted([*b"ab", SEPARATOR, *b"cd"])
    assert bytes(continue_prompt(network, Bytes(), "x", sampling)) == b"ab\xffcd"
    assert network.given == [*b"xab", SEPARATOR, *b"c"]


def test_a_text_can_be_drawn_from_nothing():
    network = Scripted(b"abc")
    assert (
        bytes(
            continue_prompt(network, Bytes(separator=SEPARATOR), "", GenerationOptions(max_new_tokens=3, temperature=0))
        )
        == b"abc"
    )
    with pytest.raises(ValueError, match="the prompt is empty"):
        next(continue_prompt(network, Bytes(), "", GenerationOptions(max_new_tokens=3)))
