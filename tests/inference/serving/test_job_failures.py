"""Failures of steps, of sources and of clients end only the jobs that they concern."""

import logging
import math
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from served_models import Client, Gate, make_completer, make_translator

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import ErrorEvent, JobEnd, StepError, TokenEvent
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.text_generator import DecodingSetup

pytestmark = pytest.mark.usefixtures("no_shape_checks")
GREEDY = GenerationOptions(temperature=0, max_new_tokens=30)
BEAMS = GenerationOptions(max_new_tokens=8, method=partial(BeamSearch, beams=2))
NOT_FINITE = r"the model's scores of the (next token|prompt) are not finite"


class Faulty(ModelWrapper):
    """Model whose next forward of several raises the error that is set."""

    def __init__(self, model):
        super().__init__(model)
        self.error = None

    def new_cache(self, *arguments, **options):
        return self.model.new_cache(*arguments, **options)

    def __call__(self, tokens, **options):
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.model(tokens, **options)


@pytest.fixture
def faulty():
    return Faulty(make_completer().model)


@pytest.fixture
def engine(faulty):
    made = Engine({"lm": make_completer().replace_model(faulty), "pairs": make_translator()}, rows=4)
    made.start()
    yield made
    made.close()


def run_alone(options, text):
    """Return the tokens of each sequence, without an engine."""
    (found,) = make_completer().complete(number_prompts([text]), options)
    return [each.tokens for each in found.completions]


def run(submit, *arguments, **options):
    """Submit a job and wait for its end."""
    client = Client()
    submit(*arguments, client, **options)
    client.wait()
    return client


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), StepError, "serve with fewer rows"),
        (MemoryError(), StepError, "there is not enough memory for the requests of this step"),
        (KeyError("a fault of the model"), KeyError, "a fault of the model"),
    ],
    ids=["device", "host", "other"],
)
@pytest.mark.parametrize(
    "options", [GREEDY, BEAMS, replace(GREEDY, method=PromptLookup)], ids=["sample", "beams", "lookup"]
)
def test_a_failed_step_ends_its_jobs_and_the_engine_lives_on(engine, faulty, options, error, kind, message, caplog):
    wanted = run(engine.complete, "lm", "abc", options)
    gate, waiting = Gate(), Client()
    # Nothing else runs while the error is set.
    engine.complete("lm", "hold", replace(GREEDY, max_new_tokens=1), gate)
    assert gate.first.wait(60)
    faulty.error = error
    engine.complete("lm", "abc", options, waiting)
    gate.open()
    assert isinstance(waiting.error, kind) and message in str(waiting.error)
    assert waiting.error.__traceback__ is None
    assert any(record.levelno >= logging.WARNING for record in caplog.records)
    again = run(engine.complete, "lm", "abc", options).finish()
    # A job after the error gets what it got before.
    if options is BEAMS:
        assert again.candidates.completions[0].tokens == wanted.candidates.completions[0].tokens
    else:
        assert again.tokens() == wanted.tokens()


def test_a_failed_score_ends_its_job_only(engine, faulty):
    faulty.error = RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
    assert isinstance(run(engine.score, "lm", "abc").error, StepError)
    run(engine.score, "lm", "abc").finish()


def test_scores_that_are_not_finite_end_one_job_of_many():
    completer = make_completer()
    with torch.no_grad():
        # Rows that have this character.
        completer.model.token_embedding.weight[completer.tokenizer.encode("!")[0]] = math.nan
    engine = Engine({"lm": completer})
    clients = {text: Client() for text in ("abc", "ab!", "b", "a longer prompt", "!")}
    for text, client in clients.items():
        engine.complete("lm", text, replace(GREEDY, num_return_sequences=1), client)
    beams = {text: Client() for text in ("abc", "ab!")}
    for text, client in beams.items():
        engine.complete("lm", text, BEAMS, client)
    scored = Client()
    engine.score("lm", "a!b", scored)
    engine.start()
    for text, client in (*clients.items(), *beams.items(), ("!", scored)):
        if "!" in text:
            assert client.error.__traceback__ is None
            with pytest.raises(StepError, match=NOT_FINITE):
                raise client.error
        else:
            client.finish()
    engine.drain()
    load = engine.measure()["lm"]
    assert (load.completed, load.failed) == (4, 4)


class Poisoned(Filter):
    """Filter that fails at its first token, or at a later one."""

    def __init__(self, length=0):
        self.length = length

    def __call__(self, logits, history):
        if int((history.lengths - history.prompts).max()) >= self.length:
            raise IndexError("a fault of the filter")
        return logits


def test_new_sequences_that_fail_end_alone_and_the_others_continue(faulty):
    engine = Engine({"lm": make_completer().replace_model(faulty)}, rows=8)
    poisoned = replace(GREEDY, filters=[Poisoned])
    options = {"running": GREEDY, "several": replace(GREEDY, temperature=1, num_return_sequences=2), "new": GREEDY}
    clients = {name: Client() for name in options}
    bad = [Client(), Client()]
    wanted = {name: run_alone(each, name) for name, each in options.items()}
    # The failing ones come while others are decoded, and with other new ones.
    holding = Gate()
    engine.complete("lm", "running", GREEDY, holding)
    engine.complete("lm", "several", options["several"], clients["several"])
    engine.start()
    assert holding.first.wait(60)
    engine.complete("lm", "bad", poisoned, bad[0])
    engine.complete("lm", "new", GREEDY, clients["new"])
    engine.complete("lm", "bad", poisoned, bad[1])
    engine.complete("lm", "running", GREEDY, clients["running"])
    holding.open()
    for client in bad:
        assert isinstance(client.error, IndexError)
    for name, client in clients.items():
        assert [client.finish().tokens(n) for n in range(options[name].num_return_sequences)] == wanted[name], name
    assert [holding.finish().tokens()] == wanted["running"]
    engine.drain()
    load = engine.measure()["lm"]
    assert (load.completed, load.failed) == (4, 2)


def test_a_step_without_new_sequences_ends_all_of_its_jobs(engine):
    clients = [Client() for _ in range(3)]
    engine.complete("lm", "bad", replace(GREEDY, filters=[partial(Poisoned, length=5)]), clients[0])
    engine.complete("lm", "good", GREEDY, clients[1])
    engine.translate("pairs", "3 4", GenerationOptions(), clients[2])
    assert isinstance(clients[0].error, IndexError)
    # It was decoded with the bad one, if both were there by then.
    assert isinstance(clients[1].wait()[-1], ErrorEvent | JobEnd)
    clients[2].finish()
    run(engine.complete, "lm", "good", GREEDY).finish()


def test_a_source_that_fails_ends_its_job_only(monkeypatch):
    translator = make_translator()
    encode = translator.encode_sources

    def fail(rows, batch):
        if any(9 in row for row in rows):
            raise RuntimeError("[enforce fail] not enough memory: you tried to allocate 1 bytes")
        return encode(rows, batch)

    monkeypatch.setattr(translator, "encode_sources", fail)
    engine = Engine({"pairs": translator})
    for options in (GenerationOptions(), BEAMS):
        clients = {source: Client() for source in ("3 4", "3 9", "5")}
        for source, client in clients.items():
            engine.translate("pairs", source, options, client)
        if options is not BEAMS:
            engine.start()
        assert isinstance(clients["3 9"].error, StepError)
        clients["3 4"].finish()
        clients["5"].finish()
    engine.close()


def test_a_client_whose_receiver_fails_is_cancelled(engine, caplog):
    def fail(event):
        raise ValueError("the client has a fault")

    engine.complete("lm", "abc", GREEDY, fail)
    other = run(engine.complete, "lm", "abc", GREEDY).finish()
    assert len(other.tokens()) == 30
    assert engine.measure()["lm"].cancelled == 1
    assert "the receiver of a job's events failed, so the job is cancelled" in caplog.text


def test_a_tokenizer_that_fails_ends_its_job_only(engine, monkeypatch):
    completer = engine._workers["lm"].generator

    class Stream:
        def push(self, token):
            raise LookupError("no text")

    with monkeypatch.context() as changed:
        changed.setattr(completer.tokenizer, "stream", Stream, raising=False)
        assert isinstance(run(engine.complete, "lm", "abc", GREEDY).error, LookupError)
    run(engine.complete, "lm", "abc", GREEDY).finish()


class Deaf(Method):
    """Method that ignores stop strings."""

    def start(self, model, requests, params):
        return PromptLookup().start(model, requests, replace(params, stop=None))


def test_a_method_that_ignores_stop_strings_is_cut(engine):
    whole = run(engine.complete, "lm", "abc", GREEDY).finish().text()
    client = run(engine.complete, "lm", "abc", replace(GREEDY, method=Deaf, stop=[whole[4:6]])).finish()
    assert client.text() == whole[: whole.index(whole[4:6])] and client.reason() == "stop"
    assert sum(isinstance(each, TokenEvent) for each in client.events) == client.events[-1].generated_tokens < 30


def test_a_draft_decodes_every_completion_without_a_method():
    drafted = make_completer()
    drafted.setup = DecodingSetup(method=PromptLookup())
    engine = Engine({"lm": drafted, "plain": make_completer()})
    engine.start()
    found, wanted = (run(engine.complete, name, "abcabc", GREEDY).finish() for name in ("lm", "plain"))
    assert found.tokens() == wanted.tokens()
    engine.close()


def test_an_error_nobody_expects_ends_all_jobs_of_its_runner(engine, monkeypatch):
    runner = engine._workers["lm"]._sampling
    with monkeypatch.context() as changed:
        changed.setattr(runner, "_admit", partial(int, "no number"))
        assert isinstance(run(engine.complete, "lm", "abc", GREEDY).error, ValueError)
    end = run(engine.complete, "lm", "abc", GREEDY).events[-1]
    assert isinstance(end, JobEnd) and not isinstance(end, ErrorEvent)
    assert threading.active_count() < 50


def test_a_command_that_fails_ends_its_job_only(engine, monkeypatch, caplog):
    worker = engine._workers["lm"]
    with monkeypatch.context() as changed:
        changed.setattr(worker, "generate", lambda job, given: int("no number"))
        assert isinstance(run(engine.complete, "lm", "abc", GREEDY).error, ValueError)
        changed.setattr(worker, "remove", lambda job: int("no number"))
        engine.score("lm", "abc", Client()).cancel()
        run(engine.translate, "pairs", "3 4", GenerationOptions()).finish()
    assert "a command of the engine failed" in caplog.text and engine.alive
    run(engine.complete, "lm", "abc", GREEDY).finish()
