"""Completions of prompts, conversations, and the text of generated tokens."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import combinations

import pytest
import torch
from made_tokenizers import MADE, content

from lightning_xt.core.cache import Cache
from lightning_xt.data.prompt_files import Prompt, number_prompts
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.filters.banned import Banned
from lightning_xt.generation.filters.forced import Forced
from lightning_xt.generation.filters.logit_bias import LogitBias
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.repetition_penalty import RepetitionPenalty
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.methods.stochastic_beam_search import StochasticBeamSearch
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.models.prefix_reuse import PrefixReuse
from lightning_xt.generation.requests import GeneratedToken, SamplingParams
from lightning_xt.inference.conversation import Conversation
from lightning_xt.inference.detokenizer import IncrementalDetokenizer, TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import Completion
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.system.json_text import to_json

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
def completer(decoder):
    return TextCompleter(decoder, SpecialBytes(), DEVICE)


def test_pieces_belong_to_the_tokens_that_made_them():
    detokenizer = IncrementalDetokenizer(Bytes(), None, ["END"])
    fed = [detokenizer.push(byte, -0.25) for byte in b"a\xe2\x82\xacbEN"]
    euro = [TextPiece("€", -0.75)]
    assert fed == [[TextPiece("a", -0.25)], [], [], euro, [TextPiece("b", -0.25)], [], []]
    assert detokenizer.push(ord("x"), -2.0) == [TextPiece("E", -0.25), TextPiece("N", -0.25), TextPiece("x", -2.0)]
    assert not detokenizer.stopped
    assert [detokenizer.push(byte) for byte in b"EN"] == [[], []]
    assert detokenizer.push(ord("D")) == [] and detokenizer.stopped
    assert detokenizer.push(ord("y")) == [] and detokenizer.finish() == []


def test_a_piece_is_cut_where_a_stop_string_begins():
    detokenizer = IncrementalDetokenizer(Bytes(), 0, ["€é"])
    assert [piece for byte in "a€".encode() for piece in detokenizer.push(byte)] == [TextPiece("a", 0.0)]
    # The end is not text; held-back pieces are.
    assert detokenizer.push(0) == []
    assert detokenizer.finish() == [TextPiece("€", 0.0)]


def test_results_depend_on_no_neighbour(completer):
    texts = ["a", "bcd efg hij", "é", "", "k" * 40]
    for sampling in (
        GenerationOptions(max_new_tokens=9),
        GenerationOptions(max_new_tokens=9, batch=2),
        GenerationOptions(max_new_tokens=9, method=PromptLookup),
    ):
        together = completer.complete_as_dicts(prompts(*texts), sampling)
        assert [each["id"] for each in together] == [0, 1, 2, 3, 4]
        for text, result in zip(texts, together, strict=True):
            (alone,) = completer.complete_as_dicts(prompts(text), GenerationOptions(max_new_tokens=9))
            assert (result["prompt"], result["text"]) == (text, alone["text"])
            pieces = [piece.text for piece in completer.stream_text(text, sampling)]
            assert "".join(pieces) == text + result["text"]


def test_a_score_is_the_sum_of_what_was_drawn(completer):
    (result,) = completer.complete_as_dicts(
        prompts("ab"), GenerationOptions(max_new_tokens=5, log_probs=True, temperature=0.5)
    )
    drawn = [
        piece
        for piece in completer.stream_text("ab", GenerationOptions(max_new_tokens=5, temperature=0.5))
        if piece.log_prob
    ]
    assert result["score"] == pytest.approx(sum(result["log_probs"]), abs=1e-3)
    assert result["score"] == pytest.approx(sum(piece.log_prob for piece in drawn), abs=1e-3)
    assert all(0 < math.exp(piece.log_prob) < 1 for piece in drawn)


def test_an_empty_prompt_without_a_start(decoder):
    with pytest.raises(ValueError, match="prompt 2 is empty, and the model has no start token"):
        TextCompleter(decoder, Bytes(), DEVICE).complete_as_dicts(prompts("a", ""), GenerationOptions(max_new_tokens=2))


def test_an_id_outside_the_vocabulary():
    short = TextCompleter(Decoder(100, dim=8, depth=1, attention=ATTENTION), Bytes(), DEVICE)
    with pytest.raises(ValueError, match="the prompt has token 195, outside the vocabulary of 0 to 99"):
        short.complete_as_dicts(prompts("aé"), GenerationOptions(max_new_tokens=2))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("method", [None, PromptLookup, BeamSearch, ContrastiveSearch])
def test_a_conversation_is_one_text(completer, window, method):
    temperature = 0.0 if method is ContrastiveSearch else 0.9
    sampling = GenerationOptions(max_new_tokens=6, window=window, method=method, temperature=temperature)
    conversation = Conversation(completer, sampling)
    ids = [1]
    for turn, text in enumerate(("ab", "cd", "")):
        said = list(conversation.reply(text))
        ids += completer.tokenizer.encode(text)
        plain = None if method is PromptLookup else method
        expected = GenerationOptions(max_new_tokens=6, window=window, method=plain, temperature=temperature, seed=turn)
        session = completer.open_session(expected)
        (results,) = session.generate([completer.build_request(ids, session.options)])
        drawn = [token for token in results[0].tokens if token != 2]
        assert "".join(piece.text for piece in said) == completer.tokenizer.decode(drawn)
        ids += drawn
    assert conversation.text == completer.tokenizer.decode(ids[1:])


def test_a_conversation_reads_each_token_once(completer):
    sampling = GenerationOptions(max_new_tokens=6, temperature=0.9)
    conversation = Conversation(completer, sampling)
    read = []
    for text in ("abcdefg", "hij", "", "k" * 30):
        before = conversation.model.tokens_run
        assert [*conversation.reply(text)]
        read.append(conversation.model.tokens_run - before)
    # One id opens the text, and the next turn reads the last generated one.
    assert read == [1 + 7 + 5, 1 + 3 + 5, 1 + 5, 1 + 30 + 5]
    whole = conversation.text
    assert conversation.undo()
    before = conversation.model.tokens_run
    assert [*conversation.reply("xyz")]
    # The prefix before the removed turn is not read again.
    assert conversation.model.tokens_run - before == 3 + 5
    assert whole.startswith(conversation.text.split("xyz")[0])
    conversation.reset()
    assert conversation.text == "" and not conversation.undo()


def test_an_answer_left_early_stays_as_far_as_it_was_shown(completer):
    conversation = Conversation(completer, GenerationOptions(max_new_tokens=6))
    pieces = conversation.reply("ab")
    shown = [next(pieces).text, next(pieces).text]
    pieces.close()
    assert conversation.text == "ab" + "".join(shown)
    assert len([*conversation.reply("c")]) > 0
    assert conversation.text.startswith("ab" + "".join(shown) + "c")


def test_what_cannot_go_back_is_read_again():
    """A cache that lacks needed tokens, or was interrupted within a forward, is discarded."""
    torch.manual_seed(0)
    decoder = Decoder(11, dim=8, depth=1, attention=ATTENTION).double().eval()
    model = PrefixReuse(decoder)
    model.expect([1, 2, 3])
    memory = model.new_cache(1, 5)
    model(torch.tensor([[1, 2, 3]]), cache=memory, last_only=True)
    # The same text: its last token is read for its scores.
    model.expect([1, 2, 3])
    assert model.new_cache(1, 5) is memory and memory.bound == 2
    again = model(torch.tensor([[1, 2, 3]]), cache=memory, last_only=True)
    assert torch.allclose(again, decoder(torch.tensor([[1, 2, 3]]), last_only=True))
    assert model.tokens_run == 4
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


class Script(Method):
    """Method that draws the same ids for every request, and rereads."""

    def __init__(self, ids):
        self.ids = ids

    def start(self, model, requests, params):
        self.requests = requests
        return self

    @property
    def busy(self):
        return bool(self.requests)

    def advance(self):
        numbers, self.requests = list(self.requests), {}
        return [
            GeneratedToken(number, token, -1.0, place == len(self.ids))
            for number in numbers
            for place, token in enumerate(self.ids, start=1)
        ]


def script(tokenizer, text, end=True):
    ids = [*tokenizer.encode(text), *([tokenizer.end] if end else [])]
    return lambda: Script(ids)


@pytest.mark.parametrize("text", ["", "END", "END and more"])
def test_a_prompt_is_shown_whatever_follows(completer, text):
    sampling = GenerationOptions(method=script(completer.tokenizer, text), stop=["END"])
    assert list(completer.stream_text("ab", sampling)) == [TextPiece("ab")]


def test_a_prompt_that_is_refused_is_not_shown(decoder):
    pieces = TextCompleter(decoder, SpecialBytes(), DEVICE).stream_text("ab", GenerationOptions(max_new_tokens=2))
    assert next(pieces) == TextPiece("ab")
    short = Decoder(259, dim=8, depth=1, attention=ATTENTION, embeddings=[partial(LearnedPositions, max_length=4)])
    with pytest.raises(ValueError, match="positions reach only 4"):
        next(TextCompleter(short, SpecialBytes(), DEVICE).stream_text("ab", GenerationOptions(max_new_tokens=2)))


@pytest.mark.parametrize(
    ("said", "stop", "shown"),
    [
        ("abcxyEND and more", "END", "abcxy"),
        ("ab€", "\u20ac", "ab"),
        ("é-END", "-", "é"),
        ("END", "END", ""),
        ("abcEN", "END", "abcEN"),
    ],
)
def test_the_model_continues_the_shown_text(completer, said, stop, shown):
    tokenizer = completer.tokenizer
    conversation = Conversation(completer, GenerationOptions(method=script(tokenizer, said), stop=[stop]))
    assert "".join(piece.text for piece in conversation.reply("fox")) == shown
    assert conversation.text == "fox" + shown
    assert conversation._ids == tokenizer.encode_prompt("fox" + shown)
    list(conversation.reply("!"))
    assert conversation.text == f"fox{shown}!{shown}"
    assert conversation._ids == tokenizer.encode_prompt(conversation.text)


def test_what_is_held_back_when_an_answer_is_left_is_not_said(completer):
    tokenizer = completer.tokenizer
    conversation = Conversation(completer, GenerationOptions(method=script(tokenizer, "abENd"), stop=["ENd!"]))
    pieces = conversation.reply("fox")
    assert [next(pieces).text, next(pieces).text] == ["a", "b"]
    pieces.close()
    assert conversation._ids == tokenizer.encode_prompt("foxab")


def test_a_token_that_a_stop_string_cuts_is_read_as_its_first_part():
    """With ids of several characters, the shown part of one is passed to the model by other ids."""
    tokenizer = BPE(300)
    tokenizer.train(lambda: ["the fox and the dog and the end"] * 9)
    said = tokenizer.encode("dog and the end")
    assert [tokenizer.decode([token]) for token in said[-2:]] == [" the", " end"]
    completer = TextCompleter(Decoder(300, dim=8, depth=1, attention=ATTENTION), tokenizer, DEVICE)
    conversation = Conversation(completer, GenerationOptions(method=lambda: Script(said), stop=["e end"]))
    assert "".join(piece.text for piece in conversation.reply("fox")) == "dog and th"
    opening = tokenizer.encode_prompt("fox")
    assert conversation._ids == [*opening, *said[:-2], *tokenizer.encode(" th")]
    assert tokenizer.decode(conversation._ids[len(opening) :]) == "dog and th"


def begin(kind):
    """Return a completer, and ids of " sat on the mat" after other text."""
    tokenizer = TokenizerFile(model=content(kind))
    torch.manual_seed(1)
    decoder = Decoder(tokenizer.vocab_size, dim=8, depth=1, attention=ATTENTION)
    # Most put the space there by themselves.
    rest = tokenizer.encode(" sat on the mat" if kind in ("gpt2", "llama3") else "sat on the mat")
    return TextCompleter(decoder, tokenizer, DEVICE), rest


@pytest.mark.parametrize("kind", MADE)
def test_a_completion_continues_the_text_of_its_prompt(kind):
    """Tokenizers write the first id of a text without its space, or mark that it continues another."""
    completer, rest = begin(kind)
    forced = GenerationOptions(max_new_tokens=len(rest), filters=[partial(Forced, rest)])
    (found,) = completer.complete_as_dicts(prompts("the cat"), forced)
    assert found["prompt"] + found["text"] == "the cat sat on the mat"
    assert "".join(piece.text for piece in completer.stream_text("the cat", forced)) == "the cat sat on the mat"
    conversation = Conversation(completer, forced)
    list(conversation.reply("the cat"))
    assert conversation.text == "the cat sat on the mat"
    assert conversation._ids == completer.tokenizer.encode_prompt("the cat") + rest


@pytest.mark.parametrize("method", [None, partial(BeamSearch, beams=2)])
@pytest.mark.parametrize("kind", MADE)
def test_a_stop_string_begins_with_the_space_of_the_first_token(kind, method):
    completer, rest = begin(kind)
    options = GenerationOptions(
        max_new_tokens=len(rest), filters=[partial(Forced, rest)], method=method, stop=[" sat"], log_probs=True
    )
    (found,) = completer.complete_as_dicts(prompts("the cat"), options)
    assert found["text"] == "" and len(found["tokens"]) < len(rest)
    ids = torch.tensor([completer.tokenizer.encode_prompt("the cat")])
    assert completer.decode(ids, None, options).tolist() == [found["tokens"]]
    conversation = Conversation(completer, replace(options, stop=["at o"]))
    list(conversation.reply("the cat"))
    assert conversation.text == "the cat s"
    known = completer.tokenizer.decode(completer.tokenizer.encode("s"))
    assert completer.tokenizer.decode(conversation._ids) == f"the cat {known}"


@pytest.mark.parametrize("method", [partial(BeamSearch, beams=3), partial(StochasticBeamSearch, beams=3)])
def test_beams_that_end_at_once_leave_nothing_behind(decoder, method):
    """Beams that end at once run no forward after the prompt, and leave nothing in the cache."""
    completer = TextCompleter(decoder, SpecialBytes(), DEVICE)
    conversation = Conversation(completer, GenerationOptions(max_new_tokens=1, method=method))
    for turn, text in enumerate(("ab", "c", "")):
        ids = [*conversation._ids, *(SpecialBytes().encode(text) if turn else SpecialBytes().encode_prompt(text))]
        list(conversation.reply(text))
        session = completer.open_session(GenerationOptions(max_new_tokens=1, method=method, seed=turn))
        ((best,),) = session.generate([completer.build_request(ids, session.options)])
        assert conversation._ids == [*ids, *(token for token in best.tokens if token != 2)]


def test_methods_say_what_others_need_to_know_of_them():
    told = {
        each: (each.ranked, each.uses_seed, each.rereads_prefix, each.needs_hidden_states, each.num_sequences)
        for each in (Sample(), PromptLookup(), BeamSearch(n_best=3), StochasticBeamSearch(), ContrastiveSearch())
    }
    assert [*told.values()] == [
        (False, True, False, False, 1),
        (False, True, False, False, 1),
        (True, False, True, False, 3),
        (True, True, True, False, 1),
        (False, False, True, True, 1),
    ]
    assert GenerationOptions(method=partial(BeamSearch, n_best=3)).num_sequences == 3
    assert GenerationOptions(num_return_sequences=2).num_sequences == 2
    # A method without a statement counts as rereading.
    assert Script([1]).rereads_prefix and not Script([1]).ranked


def test_copies_are_refused():
    said = r"num_return_sequences is 3, but the method, ContrastiveSearch\(k=4, alpha=0.6\), samples nothing, so all"
    with pytest.raises(ValueError, match=said):
        GenerationOptions(method=ContrastiveSearch, num_return_sequences=3)


def test_cases_d17_the_greatest_length_penalty_still_shows_scores(completer):
    method = partial(BeamSearch, beams=3, n_best=3, length_penalty=3.0)
    options = GenerationOptions(method=method, max_new_tokens=100)
    scores = [each["score"] for each in completer.complete_as_dicts(prompts("ab"), options)[0]["sequences"]]
    assert len(set(scores)) == 3 and max(scores) < 0
    near_zero = [
        Completion([], value, [], []).as_dict(False)["score"] for value in (-0.0, -1.23456e-7, -0.123456, -7.0)
    ]
    assert list(map(repr, near_zero)) == ["0.0", "-1.235e-07", "-0.1235", "-7.0"]


def test_cases_d13_a_token_that_the_model_rules_out_has_no_score(decoder):
    torch.manual_seed(2)
    amateur = Decoder(259, dim=8, depth=1, attention=ATTENTION).double()
    contrasted = TextCompleter(Contrastive(decoder, [amateur], plausibility=1.0), SpecialBytes(), DEVICE)
    for method in (Sample, partial(BeamSearch, beams=3)):
        options = GenerationOptions(
            method=method, filters=[partial(Forced, [70, 71, 72])], max_new_tokens=3, log_probs=True
        )
        (found,) = contrasted.complete_as_dicts(prompts("ab"), options)
        assert found["text"] == "CDE" and found["score"] in (-math.inf, 0.0)
        read = json.loads(to_json(found), parse_constant=pytest.fail)
        assert None in read["log_probs"]


@pytest.mark.parametrize(
    "method", [Sample, partial(BeamSearch, beams=3), PromptLookup, partial(ContrastiveSearch, alpha=0)]
)
@pytest.mark.parametrize("apply", [partial(RepetitionPenalty, 100), partial(NoRepeatNgram, 1)])
def test_cases_d10_an_end_that_is_the_start_too_is_exempt(decoder, method, apply):
    completer = TextCompleter(decoder, Bytes(separator=10), DEVICE)
    filters = (partial(LogitBias, {10: 60.0}), apply)
    options = GenerationOptions(method=method, temperature=0.0, filters=filters, max_new_tokens=20, log_probs=True)
    found = completer.complete_as_dicts(prompts("ab", "c"), options)
    assert [each["tokens"] for each in found] == [[10], [10]]


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("kind", [BeamSearch, StochasticBeamSearch])
def test_cases_d11_a_stop_string_ends_a_hypothesis_as_an_end_token_does(kind, on_host, monkeypatch):
    decoder = Decoder(256, dim=8, depth=1, attention=ATTENTION).double().eval()
    torch.nn.init.normal_(decoder.head.to_logits.weight, std=0.5)
    monkeypatch.setattr("lightning_xt.generation.search.beams.is_on_host", lambda device: on_host)
    method, stopped = partial(kind, beams=4, n_best=4), 0
    for byte in (97, 110):
        # Different invalid bytes would be the same text.
        filters = (partial(Banned, range(128, 256)), partial(LogitBias, {byte: 3.0}))
        options = GenerationOptions(
            method=method, max_new_tokens=40, stop=[chr(byte)], filters=filters, temperature=1.0
        )
        completer = TextCompleter(decoder, Bytes(), DEVICE)
        session = completer.open_session(options)
        requests = [completer.build_request(text, session.options) for text in ("ab", "c", "defg")]
        wanted = run_requests(
            decoder, requests, SamplingParams(end=byte, filters=[make() for make in filters]), method()
        )
        found = session.complete(requests)
        for mine, other in zip(found, wanted, strict=True):
            assert [each.tokens for each in mine] == [each.tokens for each in other]
            assert [each.score for each in mine] == pytest.approx([each.score for each in other])
            stopped += sum(each.tokens[-1] == byte for each in mine)
    assert stopped > 8, "or little would be shown"


@pytest.mark.parametrize("stop", ["END", "\u20ac", "xyx"])
def test_cases_d11_a_search_stops_where_greedy_decoding_does(stop):
    class Sure:
        """Model that writes the stop string after two letters, again and again, and is nearly sure of it."""

        vocab_size, max_length, recurrences, training, forwards = 256, None, (), False, 0
        text = [120, 121, *stop.encode()]

        def train(self, mode=True):
            return self

        def new_cache(self, batch, capacity, **given):
            self.forwards = 0
            return Cache(batch, capacity, calls=1)

        def __call__(self, tokens, **given):
            logits = torch.zeros(len(tokens), 1, 256)
            logits[..., self.text[self.forwards % len(self.text)]] = 12
            self.forwards += 1
            return logits

    model, texts = Sure(), {}
    for method in (Sample, partial(BeamSearch, beams=1), partial(BeamSearch, beams=4, n_best=4, length_penalty=0)):
        options = GenerationOptions(method=method, temperature=0.0, stop=[stop], max_new_tokens=200, log_probs=True)
        (found,) = TextCompleter(model, Bytes(), DEVICE).complete_as_dicts(prompts("a"), options)
        texts[method] = found["text"], found["tokens"]
        assert model.forwards < 12
    assert len(set(map(repr, texts.values()))) == 1
    assert len({each["text"] for each in found["sequences"]}) == len(found["sequences"]) > 1


def test_settings_are_plain():
    sampling = GenerationOptions(max_new_tokens=3, stop=["x"], method=PromptLookup, seed=4)
    assert sampling.settings["method"] == "PromptLookup(ngram=3, tokens=24)"
    assert sampling.settings["stop"] == ["x"]
    assert "batch" not in sampling.settings
    with pytest.raises(ValueError, match="sampling has batch 0, which must be at least 1"):
        GenerationOptions(batch=0)
    with pytest.raises(ValueError, match="sampling has temperature nan, which must be at least 0"):
        GenerationOptions(temperature=math.nan)


@pytest.fixture
def uniform(decoder):
    """Build a completer of a model for which all tokens are equally likely."""
    torch.nn.init.zeros_(decoder.head.to_logits.weight)
    return TextCompleter(decoder, SpecialBytes(), DEVICE)


@pytest.mark.parametrize("texts", [[f"prompt {n}" for n in range(40)], ["equal"] * 40], ids=["unlike", "equal"])
def test_cases_d5_prompts_draw_independently(uniform, texts):
    """Completions of different and of equal prompts agree as often as chance has it, in 1 of 259 places."""
    options = GenerationOptions(max_new_tokens=60, seed=1)
    found = [row.tokens for each in uniform.complete(number_prompts(texts), options) for row in each.completions]
    pairs = [places for one, other in combinations(found, 2) for places in zip(one, other, strict=False)]
    equal = sum(one == other for one, other in pairs) / len(pairs)
    assert equal == pytest.approx(1 / 259, abs=5 * (258 / 259**2 / len(pairs)) ** 0.5)


def test_cases_d5_draws_depend_on_no_order_and_no_batch(uniform):
    options = GenerationOptions(max_new_tokens=12, num_return_sequences=2)
    numbered = number_prompts(["a", "b", "a", "c", "a"])
    assert [each.get("repeat", 0) for each in numbered] == [0, 0, 1, 0, 2]

    def complete(some, options):
        return {each.metadata["id"]: [one.text for one in each.completions] for each in uniform.complete(some, options)}

    found = complete(numbered, options)
    assert len({text for texts in found.values() for text in texts}) == 10
    # Parts of a file, as several processes have them.
    assert complete(numbered[::-2], GenerationOptions(max_new_tokens=12, num_return_sequences=2, batch=3)) == {
        number: found[number] for number in (4, 2, 0)
    }
    assert complete(numbered, GenerationOptions(max_new_tokens=12, seed=1)) == {n: found[n][1:] for n in range(5)}
    streamed = [list(uniform.stream_text("a", GenerationOptions(max_new_tokens=12), repeat)) for repeat in range(3)]
    texts = ["".join(piece.text for piece in pieces) for pieces in streamed]
    assert texts == ["a" + found[n][0] for n in (0, 2, 4)]


@pytest.mark.usefixtures("no_shape_checks")
def test_lengths_and_prompts_of_other_forms_are_refused(completer):
    ids, options = torch.ones(2, 3, dtype=torch.long), GenerationOptions(max_new_tokens=2)
    with pytest.raises(
        ValueError, match=r"^lengths is \[3, 3\], but 2 rows of 3 tokens were given; it must be a tensor"
    ):
        completer.decode(ids, [3, 3], options)
    with pytest.raises(ValueError, match=r"^prompt has shape \(3,\); it must be \(rows, tokens\); use prompt\[None\]"):
        completer.decode(ids[0], None, options)
