"""Requests that no engine can serve are refused in the client's thread, and defaults fit."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from served_models import Client, make_completer, make_engine, make_translator

from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.serving.work_limits import choose_tokens
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions

PLAIN = GenerationOptions(max_new_tokens=3)
EMPTY = "the prompt is empty, and the model has no start token; give at least one character or token"


@pytest.fixture(scope="module")
def engine():
    return make_engine(start=False, rows=4, tokens=20, max_waiting=3)


@pytest.mark.parametrize(
    ("prompt", "options", "alternatives", "message"),
    [
        ([], PLAIN, 0, EMPTY),
        ([3, 259], PLAIN, 0, "the prompt has token 259, outside the vocabulary of 0 to 258"),
        ([3, -1], PLAIN, 0, "the prompt has token -1, outside the vocabulary of 0 to 258"),
        ([2**80], PLAIN, 0, f"the prompt has token {2**80}, outside the vocabulary of 0 to 258"),
        ([3, 1.5], PLAIN, 0, "the prompt has 1.5 among its tokens; give whole numbers"),
        ([True], PLAIN, 0, "the prompt has True among its tokens; give whole numbers"),
        ("abc", PLAIN, 260, "generation has alternatives 260, which must be from 0 to 259"),
        ("abc", PLAIN, -1, "generation has alternatives -1, which must be from 0 to 259"),
        (
            "x" * 19,
            PLAIN,
            0,
            "the prompt has 20 tokens, but prompt and completion may have 20 together here; shorten the prompt to at "
            "most 19 tokens",
        ),
        (
            "abc",
            GenerationOptions(max_new_tokens=17),
            0,
            "a prompt of 4 tokens and 17 more make 21, but prompt and completion may have 20 together here; ask for at "
            "most 16 tokens",
        ),
        (
            "abc",
            GenerationOptions(max_new_tokens=3, method=partial(BeamSearch, beams=5)),
            0,
            "the method decodes 5 rows at once for one request, but 4 fit here; use fewer beams",
        ),
        (
            "abc",
            GenerationOptions(max_new_tokens=3, num_return_sequences=8),
            0,
            "8 sequences are requested at once; request at most 7",
        ),
        (
            "abc",
            GenerationOptions(max_new_tokens=3, method=PromptLookup),
            1,
            "alternatives are known of sampled tokens only, but the method is PromptLookup; omit one of the two",
        ),
    ],
)
def test_completions_that_cannot_be_served_are_refused(engine, prompt, options, alternatives, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        engine.complete("lm", prompt, options, Client(), alternatives=alternatives)
    assert engine.measure()["lm"].waiting == 0


def test_prompts_that_cannot_be_scored_are_refused(engine):
    with pytest.raises(ValueError, match=re.escape(EMPTY)):
        engine.score("lm", [], Client())
    with pytest.raises(ValueError, match="the prompt has 21 tokens, but at most 20 fit here; shorten it"):
        engine.score("lm", "x" * 20, Client())
    with pytest.raises(ValueError, match="generation has alternatives 300, which must be from 0 to 259"):
        engine.score("lm", "x", Client(), alternatives=300)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (" ", PLAIN, "the source is empty; give text to translate"),
        ("3 " * 20, PLAIN, "the source has 21 tokens, but at most 20 are read here; shorten it"),
        (
            "3",
            GenerationOptions(max_new_tokens=20),
            "a prompt of 1 tokens and 20 more make 21, but prompt and completion may have 20 together here",
        ),
    ],
)
def test_translations_that_cannot_be_served_are_refused(engine, source, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        engine.translate("pairs", source, options, Client())


def test_a_source_beyond_the_positions_is_refused():
    translator = make_translator()
    translator.max_source_ids = 4
    engine = Engine({"pairs": translator})
    with pytest.raises(ValueError, match=r"the source is too long: it has 9 tokens; only the first 3 are used"):
        engine.translate("pairs", "3 " * 9, PLAIN, Client())


def test_models_are_found_by_name_and_kind(engine):
    with pytest.raises(ValueError, match="unknown model 'ml'; there is lm, pairs"):
        engine.complete("ml", "abc", PLAIN, Client())
    with pytest.raises(ValueError, match="model 'pairs' translates, so it cannot complete; choose another model"):
        engine.complete("pairs", "abc", PLAIN, Client())
    with pytest.raises(ValueError, match="model 'lm' completes prompts, so it cannot translate; choose another model"):
        engine.translate("lm", "abc", PLAIN, Client())


def test_engines_are_checked():
    with pytest.raises(ValueError, match="engine has rows 0, which must be at least 1"):
        make_engine(rows=0)
    with pytest.raises(ValueError, match="engine has max_waiting -1, which must be at least 0"):
        make_engine(max_waiting=-1)
    with pytest.raises(ValueError, match="model 'gaps' neither completes nor translates texts, so it cannot be served"):
        Engine({"gaps": SimpleNamespace()})


def test_the_tokens_of_a_row_follow_the_model():
    positions = make_completer(embeddings=[partial(LearnedPositions, max_length=30)])
    assert [choose_tokens(positions, tokens) for tokens in (None, 20, 90)] == [30, 20, 30]
    assert [choose_tokens(make_completer(trained_length=8), tokens) for tokens in (None, 90)] == [32, 90]
    assert choose_tokens(make_completer(trained_length=None), None) == 4096
    translator = make_translator()
    assert choose_tokens(translator, None) == 4096
    translator.max_source_ids = 9
    assert choose_tokens(translator, None) == 36


def test_unset_lengths_are_what_fits():
    engine = make_engine(tokens=20)
    clients = [Client(), Client()]
    engine.complete("lm", "abcde", GenerationOptions(temperature=0, stop=["never"]), clients[0])
    # Twice the source and 32 more otherwise.
    engine.translate("pairs", "3 4", GenerationOptions(stop=["never"]), clients[1])
    for client, most in zip(clients, (14, 19), strict=True):
        tokens = client.finish().tokens()
        assert len(tokens) == most or tokens[-1] == 2
    engine.close()
    assert torch.is_inference_mode_enabled() is False
