"""Searches that are started together, and what a cancelled one leaves."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from served_models import Client, make_completer, make_engine

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.stochastic_beam_search import StochasticBeamSearch
from lightning_xt.inference.generation_options import GenerationOptions

pytestmark = pytest.mark.usefixtures("no_shape_checks")
BEAMS = GenerationOptions(max_new_tokens=40, method=partial(BeamSearch, beams=2, patience=None, length_penalty=3.0))


@torch.inference_mode()
@pytest.mark.parametrize(
    "method", [BeamSearch(beams=3, n_best=2), StochasticBeamSearch(beams=3)], ids=["beams", "stochastic"]
)
def test_a_cancelled_search_frees_its_rows_and_changes_no_other(method):
    completer = make_completer()
    session = completer.open_session(replace(BEAMS, method=None, max_new_tokens=8))
    texts = ["a", "a longer prompt", "b"]
    requests = {n: completer.build_request(text, session.options) for n, text in enumerate(texts)}

    def finish(numbers, cancelled=()):
        run = method.start(session.model, {n: requests[n] for n in numbers}, session.make_params(lambda number: None))
        tokens = run.advance()
        for number in cancelled:
            run.cancel(number)
        while run.busy:
            tokens += run.advance()
            assert set(cancelled).isdisjoint(run.requests)
            assert not run.busy or len(run.cache.lengths) == 3 * len(run.requests)
        return sorted((each.request, each.sequence, each.token, each.score or 0) for each in tokens)

    whole = finish(range(3))
    assert finish(range(3), cancelled=[1, 7]) == [each for each in whole if each[0] != 1]
    assert finish(range(3), cancelled=[0, 1, 2]) == []


def test_waiting_searches_of_equal_settings_are_one_run_and_others_wait_for_rows():
    engine = make_engine(start=False, rows=6)
    settings = [BEAMS, replace(BEAMS, max_new_tokens=5), replace(BEAMS, temperature=0.5), BEAMS]
    clients = [Client() for _ in settings]
    jobs = [engine.complete("lm", f"{n}", each, clients[n]) for n, each in enumerate(settings)]
    methods = engine._workers["lm"]._methods
    engine._take_commands()
    with torch.inference_mode():
        methods.advance()
        # The third has another temperature, and its rows are taken.
        assert [[task.job for task in run.tasks] for run in methods._runs] == [[jobs[0], jobs[1], jobs[3]]]
        assert [task.job for task in methods._waiting] == [jobs[2]]
        jobs[0].cancel()
        engine._take_commands()
        methods.advance()
        assert list(methods._runs[0].run.requests) == [1, 2]
    engine.start()
    for number in (1, 2, 3):
        found = clients[number].finish().candidates.completions
        (alone,) = make_completer().complete(number_prompts([f"{number}"]), settings[number])
        assert [each.tokens for each in found] == [each.tokens for each in alone.completions]
    assert clients[0].events == []
    engine.close()


def test_a_search_with_stop_strings_has_each_text_once():
    engine, client, options = make_engine(), Client(), replace(BEAMS, max_new_tokens=8)
    engine.complete("lm", "abc", options, client)
    stop = client.finish().candidates.completions[0].text[2:3]
    options = replace(options, stop=[stop], method=partial(BeamSearch, beams=4, n_best=4))
    stopped = Client()
    engine.complete("lm", "abc", options, stopped)
    texts = [each.text for each in stopped.finish().candidates.completions]
    (alone,) = make_completer().complete(number_prompts(["abc"]), options)
    assert texts == [each.text for each in alone.completions] and len(set(texts)) == len(texts)
    assert not any(stop in text for text in texts)
    engine.close()
