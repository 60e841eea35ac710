"""Translation: decoding, translations of texts and their scores."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_pairs import NETWORK

from lightning_xt.data.pairs.source_files import Source
from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.methods.stochastic_beam_search import StochasticBeamSearch
from lightning_xt.generation.requests import GeneratedToken
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator, cut_at_end
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.training.seq2seq import Seq2Seq

METHODS = [Sample, PromptLookup, partial(BeamSearch, beams=3), partial(StochasticBeamSearch, beams=3, n_best=3)]
VOCAB = {"source": 11, "target": 7, "pad": 0, "start": 1, "end": 2}
SRC = torch.tensor([[3, 9, 4, 10, 3], [5, 3, 0, 0, 0], [8, 8, 8, 0, 0]])
MASK = SRC != 0


@pytest.fixture
def model(monkeypatch):
    """Build a random model whose data are numbers."""
    torch.manual_seed(1)
    thinned = {**NETWORK, "context_dropout": 0.5}
    thinned |= {side: {**NETWORK[side], "dropout": 0.5} for side in ("encoder", "decoder")}
    made = Seq2Seq.from_config({**thinned, "vocab": VOCAB}).double()
    torch.nn.init.normal_(made.network.decoder.head.to_logits.weight)
    source, target = Numbers(11, pad=0, start=None, end=None), Numbers(7, pad=0, start=1, end=2)
    made._trained_with = {"source": source, "target": target}
    return made


def stream(model, text, sampling):
    """Return the output for a text, piece by piece."""
    return (piece.text for piece in model.text_generator.stream_text(text, sampling))


def naive(network, src, starts, most, end=2, pad=0):
    """Decode greedily, without a cache and without padding, which is never an answer."""
    found = list(starts)
    with torch.no_grad():
        while len(found) < len(starts) + most and end not in found[len(starts) :]:
            scores = network(src[None], torch.tensor([found]))[0, -1]
            scores[pad] = -torch.inf
            found.append(int(scores.argmax()))
    return found[len(starts) :]


@pytest.mark.parametrize("starts", [None, [[1]], [[1, 4, 3]], [[1, 2, 5]], [[6]]], ids=str)
def test_greedy_decoding_equals_a_naive_loop(model, starts):
    # The model may be in training mode, but nothing is dropped here.
    assert model.training
    tokens = None if starts is None else torch.tensor(starts * 3)
    found = model.generate(SRC, start_tokens=tokens, max_new_tokens=9, src_mask=MASK)
    assert model.training and model.network.training and model.network.encoder.dropout.training
    model.eval()
    for row in range(3):
        expected = naive(model.network, SRC[row][MASK[row]], [1] if starts is None else starts[0], 9)
        assert found[row].tolist() == [*expected, *[0] * (found.shape[1] - len(expected))]
    assert torch.equal(model.generate(SRC, start_tokens=tokens, max_new_tokens=9, src_mask=MASK), found)
    assert not model.network.training


def test_rows_decode_as_they_do_alone(model):
    for row in range(3):
        together = model.generate(SRC, src_mask=MASK)[row]
        alone = model.generate(SRC[row][MASK[row]][None])[0]
        assert together[: len(alone)].tolist() == alone.tolist()
        assert not together[len(alone) :].any()


def test_without_a_length_an_answer_may_be_twice_its_source_and_32_more(model):
    model.vocab["end"] = None
    found = model.generate(SRC, src_mask=MASK)
    assert found.shape == (3, 2 * 5 + 32)
    assert not found[1, 2 * 2 + 32 :].any() and not found[2, 2 * 3 + 32 :].any()
    alone = naive(model.eval().network, SRC[1, :2], [1], 2 * 2 + 32, end=None)
    assert found[1, : 2 * 2 + 32].tolist() == alone
    # Without a mask a source has no padding.
    assert model.generate(SRC[1:2]).shape == (1, 2 * 5 + 32)


def test_a_temperature_draws(model):
    drawn = [model.generate(SRC, max_new_tokens=20, src_mask=MASK, temperature=1.0, seed=seed) for seed in (0, 0, 7)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    likeliest = model.generate(SRC, max_new_tokens=20, src_mask=MASK, temperature=5.0, top_k=1)
    assert torch.equal(likeliest, model.generate(SRC, max_new_tokens=20, src_mask=MASK))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"src": SRC[:, :0]}, "a source is empty, or all of it is padding; give each at least one token"),
        ({"src": SRC, "src_mask": MASK & (SRC != 8)}, "a source is empty, or all of it is padding"),
        ({"src": SRC + 1}, "a source has token 11, outside the vocabulary of 0 to 10"),
        ({"src": -SRC}, "a source has token -10, outside the vocabulary of 0 to 10"),
        ({"src": SRC, "start_tokens": torch.full((3, 1), 7)}, "has token 7, outside the vocabulary of 0 to 6"),
        ({"src": SRC, "start_tokens": torch.ones(3, 0, dtype=torch.long)}, "the prompt is empty"),
        ({"src": SRC[0]}, r"^src has shape \(\d+,\); it must be \(rows, tokens\); use src\[None\]$"),
        (
            {"src": SRC, "start_tokens": torch.tensor([1])},
            r"^start_tokens has shape \(1,\); it must be \(rows, tokens\)",
        ),
        ({"src": SRC, "start_tokens": torch.ones(1, 1, dtype=torch.long)}, "has 1 rows, but there are 3 sources; give"),
        ({"src": SRC, "top_p": 0.9}, "top_p is 0.9, but without a temperature the most likely token is always taken"),
        ({"src": SRC, "top_k": 2}, "top_k is 2, but without a temperature"),
        (
            {"src": SRC, "min_p": 0.1},
            "min_p is 0.1, but without a temperature .*; set a temperature above 0, or omit min_p",
        ),
        ({"src": SRC, "max_new_tokens": 0}, "sampling has max_new_tokens 0, which must be at least 1"),
        ({"src": SRC, "temperature": -1.0}, "sampling has temperature -1.0, which must be at least 0 and below inf"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:24],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_what_cannot_be_decoded(model, arguments, said):
    with pytest.raises(ValueError, match=said):
        model.generate(**arguments)
    assert model.training


def test_a_vocabulary_without_a_start(model):
    model.vocab["start"] = None
    with pytest.raises(ValueError, match="the vocabulary has no start token; give generate its start_tokens"):
        model.generate(SRC)
    assert model.generate(SRC, start_tokens=torch.ones(3, 1, dtype=torch.long), max_new_tokens=2).shape == (3, 2)


def source(number, text, problem=None):
    return {"id": number, "text": text, "problem": problem}


def test_answers_and_their_scores(model):
    texts = ["3 9 4 10 3", "", "5 3", " ", "8 8 8", "5 eleven", None, "4 4 4 4 4 4 4"]
    sources = [source(n, text, "no UTF-8" if text is None else None) for n, text in enumerate(texts, start=4)]
    results = model.predict_step(sources, 0)
    assert [result["id"] for result in results] == [*range(4, 12)]
    assert [result["source"] for result in results] == [text or "" for text in texts]
    assert {n: result["problem"] for n, result in enumerate(results) if result["problem"]} == {
        5: "line 10: 'eleven' is not one of the 11 ids; write numbers from 0 to 10, separated by spaces, such as "
        "'5 3 17'",
        6: "no UTF-8",
    }
    model.eval()
    for number, (text, result) in enumerate(zip(texts, results, strict=True)):
        if number in (1, 3, 5, 6):
            assert (result["text"], result["score"]) == ("", 0.0)
            continue
        src = torch.tensor([[int(word) for word in text.split()]])
        ids = naive(model.network, src[0], [1], 2 * src.shape[1] + 32)
        chances = model.network(src, torch.tensor([[1, *ids[:-1]]]))[0].float().log_softmax(-1)
        assert result["text"] == " ".join(str(token) for token in ids if token > 2)
        assert result["score"] == pytest.approx(sum(chances[t, i].item() for t, i in enumerate(ids)), abs=2e-4)
    # Some translations end and some do not, or the scores would show less.
    assert "".join(stream(model, "5 3", GenerationOptions())) == results[2]["text"]


@pytest.mark.parametrize("end", [2, None])
def test_an_answer_that_is_cut_off_scores_alike_next_to_longer_ones(model, end):
    """Padding after the limit of a row is not part of its translation."""
    torch.nn.init.zeros_(model.network.decoder.head.to_logits.weight)
    model.vocab["end"] = end
    # All tokens are equally likely, and the first, which is not the end, is drawn.
    together = model.predict_step([source(0, "5 3"), source(1, "4 4 4 4 4 4 4")], 0)
    for number, result in enumerate(together):
        (alone,) = model.predict_step([source(number, result["source"])], 0)
        assert result == alone
    lengths = [2 * 2 + 32, 2 * 7 + 32]
    expected = [-length * torch.tensor(7.0).log().item() for length in lengths]
    assert [result["score"] for result in together] == pytest.approx(expected, abs=1e-3)


def test_a_source_that_is_too_long_is_cut_and_reported(model):
    network = SimpleNamespace(encoder=SimpleNamespace(max_length=4))
    numbers = Numbers(11, pad=0, start=None, end=2)
    translator = Translator(network, numbers, numbers, VOCAB)
    assert translator.tokenize_source("3 4 5") == ([3, 4, 5, 2], None)
    problem = "it has 5 tokens; only the first 3 are used (max_length)"
    assert translator.tokenize_source("3 4 5 6 7") == ([3, 4, 5, 2], problem)


def test_streaming_needs_a_source(model):
    with pytest.raises(ValueError, match=r"generate needs a source to translate: --prompt"):
        list(stream(model, "  ", GenerationOptions()))
    with pytest.raises(ValueError, match="'x' is not one of the 11 ids"):
        list(stream(model, "3 x", GenerationOptions()))


def test_what_stands_before_the_end():
    assert cut_at_end([4, 2, 5], 2) == [4]
    assert cut_at_end([4, 5], 2) == [4, 5]
    assert cut_at_end([4, 2], None) == [4, 2]


def test_positions_limit_an_answer():
    """A translation is as long as the decoder's positions at most, instead of twice the source and 32 more."""
    learned = [{"class_path": "LearnedPositions", "init_args": {"max_length": 20}}]
    config = {"encoder": NETWORK["encoder"], "decoder": {**NETWORK["decoder"], "embeddings": learned}}
    model = Seq2Seq.from_config({**config, "vocab": {**VOCAB, "end": None}})
    assert isinstance(model.network, EncoderDecoder)
    assert model.generate(SRC, src_mask=MASK).shape == (3, 19)
    with pytest.raises(ValueError, match="the model's positions reach only 20"):
        model.generate(SRC, max_new_tokens=20, src_mask=MASK)
    assert model.limit_length(None, GenerationOptions()).max_new_tokens is None
    assert model.limit_length(None, GenerationOptions(max_new_tokens=30)).max_new_tokens == 19
    assert model.limit_length(None, GenerationOptions(max_new_tokens=7)).max_new_tokens == 7


def test_what_is_streamed_leaves_the_caller_as_it_was(model):
    model.train()
    pieces = model.text_generator.stream_text("3 9 4", GenerationOptions(max_new_tokens=4))
    next(pieces)
    assert torch.is_grad_enabled()
    pieces.close()
    assert model.training and model.network.decoder.training


class Script(Method):
    """Method that draws the same ids for every request."""

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


def test_a_stream_ends_with_its_end(model):
    script = Script([3, 4, VOCAB["end"]])
    sampling = GenerationOptions(method=lambda: script)
    assert "".join(stream(model, "3 9 4", sampling)) == "3 4"
    (answer,) = model.text_generator.translate_texts(["3 9 4"], sampling)
    assert (answer["text"], answer["score"]) == ("3 4", -3.0)


def test_sources_are_read_in_groups_of_like_lengths(model, monkeypatch):
    texts = ["4 4 4 4 4 4 4", "5 3", "3 9 4 10 3", "8", "8 8 8"]
    whole = model.text_generator.translate_texts(texts, GenerationOptions(max_new_tokens=9))
    read, encode = [], EncoderDecoder.encode

    def counted(self, src, src_mask=None, **options):
        read.append((tuple(src.shape), src_mask is None))
        return encode(self, src, src_mask, **options)

    monkeypatch.setattr(EncoderDecoder, "encode", counted)
    found = model.text_generator.translate_texts(texts, GenerationOptions(max_new_tokens=9, batch=2))
    assert found == whole and [each["source"] for each in found] == texts
    assert read == [((2, 2), False), ((2, 5), False), ((1, 7), True)]


def test_a_row_knows_its_own_source_alone(model):
    translator, holes = model.text_generator, MASK.clone()
    holes[0, 1] = False
    starts = torch.ones(3, 1, dtype=torch.long)
    requests = translator._make_requests(SRC, holes, starts, (0, 0, 0), GenerationOptions(batch=2))
    assert [request.inputs.context.shape[:2] for request in requests] == [(1, 5), (1, 2), (1, 3)]
    assert requests[0].inputs.context_mask.tolist() == holes[:1].tolist()
    assert requests[1].inputs.context_mask is None and requests[2].inputs.context_mask is None
    assert model.training
    for row, request in enumerate(requests):
        alone = model.eval().network.encode(SRC[[row]], holes[[row]]).context[:, : request.inputs.context.shape[1]]
        assert torch.allclose(request.inputs.context, alone)


def test_sources_that_do_not_fit_into_memory(model, monkeypatch):
    def full(self, src, src_mask=None):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(EncoderDecoder, "encode", full)
    said = r"not enough memory to encode 2 sources of 3 tokens at once; lower --batch .*, or shorten them"
    with pytest.raises(ValueError, match=said):
        model.text_generator.translate_texts(["4 4 4 4", "5 3", "3 9 4"], GenerationOptions(batch=2))
    assert model.training


def test_start_tokens_that_leave_no_room(model):
    starts = torch.ones(3, 20, dtype=torch.long)
    learned = [{"class_path": "LearnedPositions", "init_args": {"max_length": 20}}]
    config = {"encoder": NETWORK["encoder"], "decoder": {**NETWORK["decoder"], "embeddings": learned}}
    short = Seq2Seq.from_config({**config, "vocab": VOCAB})
    with pytest.raises(ValueError, match="20 start tokens leave no room for a target"):
        short.generate(SRC, start_tokens=starts, src_mask=MASK)


def test_a_source_beyond_the_positions_is_reported():
    learned = [{"class_path": "LearnedPositions", "init_args": {"max_length": 4}}]
    config = {"encoder": {**NETWORK["encoder"], "embeddings": learned}, "decoder": NETWORK["decoder"]}
    short = Seq2Seq.from_config(config)
    # Without a data module sources are bytes: five and the end.
    assert short.text_generator.find_problem("abcde") == "it has 5 tokens; only the first 3 are used (max_length)"
    assert short.text_generator.find_problem("abc") is None
    assert list(stream(short, "abcde", GenerationOptions(max_new_tokens=2))) == list(
        stream(short, "abc", GenerationOptions(max_new_tokens=2))
    )
    assert short.draw_samples(["abcde"], GenerationOptions(max_new_tokens=2))[0].endswith(
        "\n(line 1: it has 5 tokens; only the first 3 are used (max_length))"
    )


def test_cases_n2_a_text_gives_a_text(model):
    text = "3 9 4 10 3"
    assert model.translate(text) == model.translate([text])[0] == model.translate((text,))[0] != ""
    assert model.translate("") == "" and model.translate([]) == []


@pytest.mark.parametrize("wrong", [None, 7, b"3 9", [3, 9], ["3 9", None], {"text": "3 9"}, torch.tensor([[3, 9]])])
def test_cases_n2_refuses_other_types(model, wrong):
    with pytest.raises(TypeError, match=r"^a text was expected, or a list of texts, but there is "):
        model.translate(wrong)


def test_cases_n2_a_stop_string_is_not_a_list_of_letters():
    with pytest.raises(
        ValueError, match=r"^sampling: stop is the text 'end'; give a list of texts, such as \['end'\]$"
    ):
        GenerationOptions(stop="end")


def test_texts_are_translated_from_python(model):
    texts = ["3 9 4 10 3", "", "5 eleven"]
    expected = model.predict_step([source(n, text) for n, text in enumerate(texts)], 0)
    assert model.translate(texts) == [result["text"] for result in expected]
    assert model.translate(texts)[1:] == ["", ""]
    assert all(len(text.split()) <= 2 for text in model.translate(texts, max_new_tokens=2))


def test_cases_d5_sources_draw_independently(model):
    """A translation depends on its source, its seed and the number of equal sources before it."""
    torch.nn.init.zeros_(model.network.decoder.head.to_logits.weight)
    texts, sampling = ["3 4", "5 6", "3 4", "7", "", "3 4"], {"temperature": 1.0, "max_new_tokens": 40, "seed": 9}
    found = model.translate(texts, **sampling)
    assert found[4] == "" and len(set(found)) == len(texts)
    order = [3, 5, 1, 4, 0, 2]
    again = dict(zip(order, model.translate([texts[n] for n in order], batch=2, **sampling), strict=True))
    assert [again[n] for n in (1, 3, 4)] == [found[n] for n in (1, 3, 4)]
    # Equal sources are numbered in the order in which they come.
    assert [again[n] for n in (5, 0, 2)] == [found[n] for n in (0, 2, 5)]
    assert model.translate("3 4", **sampling) == found[0]
    drawn = stream(model, "3 4", GenerationOptions(**sampling))
    assert "".join(drawn) == found[0]


@pytest.fixture
def learned():
    """Train a tokenizer whose vocabulary is larger than its meaning, on text with one pair that repeats."""
    tokenizer = BPE(300)
    tokenizer.train(lambda: ["abab", "ab c"] * 3)
    assert len(tokenizer.unused) > 30
    return tokenizer


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_cases_d8_ids_that_stand_for_nothing_are_not_generated(learned, method):
    torch.manual_seed(0)
    special = {"pad": 0, "start": 1, "end": 2}
    model = Seq2Seq.from_config({**NETWORK, "vocab": {"source": 300, "target": 300, **special}})
    torch.nn.init.zeros_(model.network.decoder.head.to_logits.weight)
    model._trained_with = {"source": learned, "target": learned}
    wanted = GenerationOptions(method=method, temperature=1.0, max_new_tokens=40, log_probs=True)
    sources = [Source(id=n, text=text, problem=None) for n, text in enumerate(["ab", "c", "abc"] * 4)]
    drawn = {token for each in model.text_generator.complete_as_dicts(sources, wanted) for token in each["tokens"]}
    assert drawn and drawn <= {2, *range(3, 300)}.difference(learned.unused)
    decoder = Decoder(300, dim=16, depth=1)
    torch.nn.init.zeros_(decoder.head.to_logits.weight)
    found = TextCompleter(decoder, learned, torch.device("cpu")).complete_as_dicts(number_prompts(["ab"] * 9), wanted)
    drawn = {token for each in found for token in each["tokens"]}
    assert drawn and drawn <= {2, *range(3, 300)}.difference(learned.unused)


def test_cases_d18_python_returns_one_sequence_or_refuses(model):
    for call in (lambda **options: model.translate("3 9", **options), lambda **options: model.generate(SRC, **options)):
        with pytest.raises(
            ValueError, match=r"returns one sequence of each prompt or source, but 3 are requested \(num"
        ):
            call(num_return_sequences=3, temperature=1.0)


def test_options_of_sampling_that_keep_the_most_likely_token_need_no_temperature(model):
    greedy = model.generate(SRC, src_mask=MASK, max_new_tokens=5)
    for options in ({"top_p": 1.0}, {"top_k": 1}, {"min_p": 0.0}, {"top_p": 0.9, "temperature": 0}):
        assert torch.equal(model.generate(SRC, src_mask=MASK, max_new_tokens=5, **options), greedy)
