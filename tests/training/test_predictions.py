"""Continuations of prompts, conversations, and the text of what is drawn."""

import math
from functools import partial

import pytest
import torch

from lightning_xt.data.prompts import Prompt
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.training.conversation import Conversation
from lightning_xt.training.predictions import Continuer
from lightning_xt.training.remembering import Remembering
from lightning_xt.training.sampling import Sampling
from lightning_xt.training.writing import Piece, Writing

DEVICE = torch.device("cpu")
ATTENTION = partial(Attention, heads=2)


def prompts(*texts):
    return [Prompt(id=number, prompt=text) for number, text in enumerate(texts)]


@pytest.fixture
def decoder():
    torch.manual_seed(1)
    made = Decoder(259, dim=8, depth=1, attention=ATTENTION).double().eval()
    torch.nn.init.normal_(made.head.to_logits.weight, std=2.0)
    return made


@pytest.fixture
def continuer(decoder):
    return Continuer(decoder, SpecialBytes(), DEVICE)


def test_pieces_belong_to_the_tokens_that_made_them():
    writing = Writing(Bytes(), None, ["END"])
    fed = [writing.feed(byte, -0.25) for byte in b"a\xe2\x82\xacbEN"]
    euro = [Piece("€", -0.75)]
    assert fed == [[Piece("a", -0.25)], [], [], euro, [Piece("b", -0.25)], [], []]
    assert writing.feed(ord("x"), -2.0) == [Piece("E", -0.25), Piece("N", -0.25), Piece("x", -2.0)]
    assert not writing.stopped
    assert [writing.feed(byte) for byte in b"EN"] == [[], []]
    assert writing.feed(ord("D")) == [] and writing.stopped
    assert writing.feed(ord("y")) == [] and writing.finish() == []


def test_a_piece_is_cut_where_a_stop_string_begins():
    writing = Writing(Bytes(), 0, ["€é"])
    assert [piece for byte in "a€".encode() for piece in writing.feed(byte)] == [Piece("a", 0.0)]
    # The end is no text; what was held back is.
    assert writing.feed(0) == []
    assert writing.finish() == [Piece("€", 0.0)]


def test_results_depend_on_no_neighbour(continuer):
    texts = ["a", "bcd efg hij", "é", "", "k" * 40]
    for sampling in (Sampling(length=9), Sampling(length=9, batch=2), Sampling(length=9, method=PromptLookup)):
        together = continuer.answers(prompts(*texts), sampling)
        assert [each["id"] for each in together] == [0, 1, 2, 3, 4]
        for text, result in zip(texts, together, strict=True):
            (alone,) = continuer.answers(prompts(text), Sampling(length=9))
            assert (result["prompt"], result["text"]) == (text, alone["text"])
            pieces = [piece.text for piece in continuer.pieces(text, sampling)]
            assert "".join(pieces) == text + result["text"]


def test_a_score_is_the_sum_of_what_was_drawn(continuer):
    (result,) = continuer.answers(prompts("ab"), Sampling(length=5, log_probs=True, temperature=0.5))
    drawn = [piece for piece in continuer.pieces("ab", Sampling(length=5, temperature=0.5)) if piece.log_prob]
    assert result["score"] == pytest.approx(sum(result["log_probs"]), abs=1e-3)
    assert result["score"] == pytest.approx(sum(piece.log_prob for piece in drawn), abs=1e-3)
    assert all(0 < math.exp(piece.log_prob) < 1 for piece in drawn)


def test_an_empty_prompt_without_a_start(decoder):
    with pytest.raises(ValueError, match="prompt 2 is empty, and the model has no token that opens a text"):
        Continuer(decoder, Bytes(), DEVICE).answers(prompts("a", ""), Sampling(length=2))


def test_an_id_outside_the_vocabulary():
    short = Continuer(Decoder(100, dim=8, depth=1, attention=ATTENTION), Bytes(), DEVICE)
    with pytest.raises(ValueError, match="the prompt has token 195, outside the vocabulary of 0 to 99"):
        short.answers(prompts("aé"), Sampling(length=2))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("method", [None, PromptLookup, BeamSearch, ContrastiveSearch])
def test_a_conversation_is_one_text(continuer, window, method):
    temperature = 0.0 if method is ContrastiveSearch else 0.9
    sampling = Sampling(length=6, window=window, method=method, temperature=temperature)
    conversation = Conversation(continuer, sampling)
    ids = [1]
    for turn, text in enumerate(("ab", "cd", "")):
        said = list(conversation.answer(text))
        ids += continuer.tokenizer.encode(text)
        plain = None if method is PromptLookup else method
        expected = Sampling(length=6, window=window, method=plain, temperature=temperature, seed=turn)
        answerer = continuer.answerer(expected)
        (results,) = answerer.results([continuer.request(ids, answerer.sampling)])
        drawn = [token for token in results[0].tokens if token != 2]
        assert "".join(piece.text for piece in said) == continuer.tokenizer.decode(drawn)
        ids += drawn
    assert conversation.text == continuer.tokenizer.decode(ids[1:])


def test_a_conversation_reads_each_token_once(continuer):
    sampling = Sampling(length=6, temperature=0.9)
    conversation = Conversation(continuer, sampling)
    read = []
    for text in ("abcdefg", "hij", "", "k" * 30):
        before = conversation.model.read
        assert [*conversation.answer(text)]
        read.append(conversation.model.read - before)
    # One id opens the text, and the last that is drawn is read by the next turn.
    assert read == [1 + 7 + 5, 1 + 3 + 5, 1 + 5, 1 + 30 + 5]
    whole = conversation.text
    assert conversation.undo()
    before = conversation.model.read
    assert [*conversation.answer("xyz")]
    # What was there before the turn that was taken back is not read again.
    assert conversation.model.read - before == 3 + 5
    assert whole.startswith(conversation.text.split("xyz")[0])
    conversation.reset()
    assert conversation.text == "" and not conversation.undo()


def test_an_answer_left_early_stays_as_far_as_it_was_shown(continuer):
    conversation = Conversation(continuer, Sampling(length=6))
    pieces = conversation.answer("ab")
    shown = [next(pieces).text, next(pieces).text]
    pieces.close()
    assert conversation.text == "ab" + "".join(shown)
    assert len([*conversation.answer("c")]) > 0
    assert conversation.text.startswith("ab" + "".join(shown) + "c")


def test_what_cannot_go_back_is_read_again():
    """A memory that forgot what is needed, or that was left in the middle of a forward, is given up."""
    torch.manual_seed(0)
    decoder = Decoder(11, dim=8, depth=1, attention=ATTENTION).double().eval()
    model = Remembering(decoder)
    model.expect([1, 2, 3])
    memory = model.new_cache(1, 5)
    model(torch.tensor([[1, 2, 3]]), cache=memory, last_only=True)
    # The same text: its last token is read for its scores.
    model.expect([1, 2, 3])
    assert model.new_cache(1, 5) is memory and memory.bound == 2
    again = model(torch.tensor([[1, 2, 3]]), cache=memory, last_only=True)
    assert torch.allclose(again, decoder(torch.tensor([[1, 2, 3]]), last_only=True))
    assert model.read == 4
    # Another window, more rows, or an interrupt.
    assert model.new_cache(1, 5, window=2) is not memory
    model.expect([4])
    wide = model.new_cache(2, 5)
    model(torch.tensor([[4], [5]]), cache=wide)
    assert model.new_cache(2, 5) is not wide
    model.expect([1, 2])
    memory = model.new_cache(1, 5)
    with pytest.raises(IndexError):
        model(torch.tensor([[1, 99]]), cache=memory)
    assert model.new_cache(1, 5) is not memory


def test_settings_are_plain():
    sampling = Sampling(length=3, stop=["x"], method=PromptLookup, seed=4)
    assert sampling.settings["method"] == "PromptLookup(ngram=3, tokens=8)"
    assert sampling.settings["stop"] == ["x"]
    assert "batch" not in sampling.settings
    with pytest.raises(ValueError, match="sampling: batch is 0; it must be at least 1"):
        Sampling(batch=0)
    with pytest.raises(ValueError, match="sampling: temperature is nan; it must be at least 0"):
        Sampling(temperature=math.nan)
