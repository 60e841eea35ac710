"""The serving engine: what a job gets, alone and among others; its limits, errors and end."""

import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from made_tokenizers import content
from served_models import SIZES, Client, Gate, complete_alone, make_completer, make_engine

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.generation.filters.forced import Forced
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.engine_load import EngineLoad
from lightning_xt.inference.serving.events import (
    EngineClosedError,
    EngineFailedError,
    JobEnd,
    QueueFullError,
    Scores,
    SequenceEnd,
    TokenEvent,
)
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.token_losses import compute_token_losses
from lightning_xt.models.decoder import Decoder

pytestmark = pytest.mark.usefixtures("no_shape_checks")
GREEDY = GenerationOptions(temperature=0, max_new_tokens=9)


@pytest.fixture
def engine():
    made = make_engine()
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["llama2", "t5", "bert"])
def test_a_completion_continues_its_prompt_unless_it_begins_a_text(kind):
    tokenizer = TokenizerFile(model=content(kind))
    completer = TextCompleter(Decoder(tokenizer.vocab_size, **SIZES), tokenizer, torch.device("cpu"))
    engine = Engine({"lm": completer})
    engine.start()
    rest = tokenizer.encode("sat on")
    options = GenerationOptions(max_new_tokens=len(rest), filters=[partial(Forced, rest)], num_return_sequences=2)
    clients = [Client() for _ in range(4)]
    search = replace(options, method=partial(BeamSearch, beams=2), num_return_sequences=1)
    engine.complete("lm", "the cat", options, clients[0])
    engine.complete("lm", "the cat", options, clients[1], new_text=True)
    engine.complete("lm", "the cat", search, clients[2])
    engine.complete("lm", "the cat", replace(options, stop=[" sat"]), clients[3])
    for client in clients:
        client.finish()
    engine.close()
    assert clients[0].text(0) == clients[0].text(1) == " sat on"
    assert clients[1].text(0) == clients[1].text(1) == "sat on"
    assert clients[2].candidates.completions[0].text == " sat on"
    assert clients[3].text(1) == "" and len(clients[3].tokens(1)) < len(rest)


def test_a_stop_string_ends_the_text_before_it(engine):
    plain = Client()
    engine.complete("lm", "stop here", GREEDY, plain)
    whole = plain.finish().text()
    assert plain.reason() == "length" and len(plain.tokens()) == 9
    stop = whole[3:5]
    client = Client()
    engine.complete("lm", "stop here", replace(GREEDY, stop=[stop, "unseen"]), client)
    assert client.finish().text() == whole[: whole.index(stop)]
    assert client.reason() == "stop"
    assert client.text() == complete_alone("stop here", replace(GREEDY, stop=[stop, "unseen"]))[0]
    # Nothing of the stop string is ever shown, and no token follows it.
    assert len(client.tokens()) < 9 and client.events[-1].generated_tokens == len(client.tokens())


def test_a_job_has_its_tokens_with_alternatives_and_its_numbers(engine):
    client = Client()
    job = engine.complete("lm", "abc", replace(GREEDY, max_new_tokens=4), client, alternatives=3)
    events = client.finish().events
    assert [type(each) for each in events] == [TokenEvent] * 4 + [SequenceEnd, JobEnd]
    for event in events[:4]:
        assert len(event.alternatives) == 3 and event.alternatives[0] == (event.token, pytest.approx(event.log_prob))
        assert event.alternatives[0][1] >= event.alternatives[1][1] >= event.alternatives[2][1]
    # The prompt's start token counts.
    assert events[-1] == JobEnd(prompt_tokens=4, generated_tokens=4)
    engine.drain()
    assert job.closed and job.outcome == "completed"
    assert engine.measure()["lm"] == EngineLoad(0, 0, 0, 4, 4, completed=1, failed=0, cancelled=0)
    assert engine.measure()["pairs"] == EngineLoad(0, 0, 0, 0, 0, completed=0, failed=0, cancelled=0)


@pytest.mark.parametrize("prefill_tokens", [512, 4])
def test_scores_are_the_negated_losses_of_the_tokens(prefill_tokens):
    engine, completer, client = make_engine(prefill_tokens=prefill_tokens), make_completer(), Client()
    engine.score("lm", "score this", client, alternatives=2)
    ids = completer.tokenizer.encode_prompt("score this")
    scores, end = client.finish().events
    engine.close()
    losses = compute_token_losses(completer.model, torch.tensor([ids]))[0]
    assert isinstance(scores, Scores) and scores.tokens == ids and end == JobEnd(len(ids), 0)
    assert scores.log_probs[0] is None and scores.alternatives[0] == ()
    assert scores.log_probs[1:] == pytest.approx((-losses).tolist(), abs=1e-12)
    logits = completer.model(torch.tensor([ids]))[0].log_softmax(dim=-1)
    for place, best in enumerate(scores.alternatives[1:]):
        assert [token for token, _ in best] == logits[place].topk(2).indices.tolist()
        assert [value for _, value in best] == pytest.approx(logits[place].topk(2).values.tolist())


def test_a_single_token_is_scored(engine):
    client = Client()
    engine.score("lm", [7], client, alternatives=1)
    assert client.finish().events == [Scores([7], [None], [()]), JobEnd(1, 0)]


def test_a_full_queue_refuses_jobs_until_one_leaves():
    engine, gate = make_engine(rows=1, max_waiting=2), Gate()
    engine.complete("lm", "a", GREEDY, gate)
    assert gate.first.wait(60)
    waiting = [Client(), Client()]
    jobs = [engine.complete("lm", "b", GREEDY, client) for client in waiting]
    load = engine.measure()["lm"]
    assert (load.running, load.waiting) == (1, 2)
    with pytest.raises(QueueFullError, match=r"3 sequences of model 'lm' are running or waiting, and at most 3 may"):
        engine.complete("lm", "c", GREEDY, Client())
    with pytest.raises(QueueFullError):
        engine.score("lm", "c", Client())
    # Each model has its own queue.
    other = Client()
    engine.translate("pairs", "3 4", GenerationOptions(), other)
    jobs[0].cancel()
    last = Client()
    engine.complete("lm", "c", GREEDY, last)
    gate.open()
    for client in (gate, waiting[1], other, last):
        client.finish()
    assert waiting[0].events == []
    engine.close()


def test_a_cancelled_job_gets_no_event_and_leaves_no_rows():
    engine = make_engine(rows=2)
    endless = GenerationOptions(max_new_tokens=150)
    clients = [Client() for _ in range(4)]
    jobs = [engine.complete("lm", f"{n}", endless, client) for n, client in enumerate(clients)]
    beams = Client()
    jobs.append(engine.complete("lm", "b", replace(endless, method=partial(BeamSearch, beams=2)), beams))
    assert clients[0].first.wait(60)
    for job in jobs:
        job.cancel()
        job.cancel()
    counts = [len(client.events) for client in clients]
    after = Client()
    engine.complete("lm", "after", GREEDY, after)
    after.finish()
    assert [len(client.events) for client in clients] == counts and beams.events == []
    engine.drain()
    load = engine.measure()["lm"]
    assert (load.running, load.waiting, load.cancelled, load.completed) == (0, 0, 5, 1)
    assert not engine._workers["lm"].busy


def test_a_job_may_be_cancelled_by_its_own_event(engine):
    jobs, seen = [], []
    submitted = threading.Event()

    def cancel(event):
        seen.append(event)
        submitted.wait(60)
        jobs[0].cancel()

    jobs.append(engine.complete("lm", "a", GREEDY, cancel))
    submitted.set()
    engine.drain()
    assert len(seen) == 1 and engine.measure()["lm"].cancelled == 1


def test_streams_flow_during_a_beam_search():
    engine = make_engine()
    order: list[str] = []
    stream, beams = (Client(lambda event, name=name: order.append(name)) for name in ("stream", "beams"))
    search = GenerationOptions(max_new_tokens=60, method=partial(BeamSearch, length_penalty=3.0, patience=None))
    engine.complete("lm", "b", search, beams)
    engine.complete("lm", "a", replace(GREEDY, max_new_tokens=60), stream)
    steps = len(beams.finish().candidates.completions[0].tokens)
    stream.finish()
    engine.close()
    # A step of each in turn: at the end of a search of n steps, the stream has about n tokens.
    assert steps > 30 and order.index("beams") > steps - 10


def test_drain_finishes_accepted_jobs_and_refuses_new_ones():
    engine, clients = make_engine(rows=2), [Client() for _ in range(5)]
    for number, client in enumerate(clients):
        engine.complete("lm", f"{number}", GREEDY, client)
    engine.drain()
    assert all(isinstance(client.events[-1], JobEnd) for client in clients)
    with pytest.raises(EngineClosedError, match="the engine is ending and accepts no more requests"):
        engine.complete("lm", "late", GREEDY, Client())
    assert not engine._thread.is_alive()
    engine.drain()
    engine.close()


def test_drain_ends_jobs_that_take_too_long():
    engine, client, gate = make_engine(), Client(), Gate()
    engine.complete("lm", "a", GREEDY, gate)
    assert gate.first.wait(60)
    engine.complete("lm", "b", GREEDY, client)
    threading.Timer(0.3, gate.open).start()
    begun = time.monotonic()
    engine.drain(timeout=0.1)
    assert time.monotonic() - begun < 10
    assert isinstance(client.error, EngineClosedError)
    assert str(client.error) == "the engine has ended before the request was finished"


def test_close_ends_jobs_with_an_error():
    engine, gate, waiting = make_engine(rows=1), Gate(), Client()
    for client in (gate, waiting):
        engine.complete("lm", "a", GREEDY, client)
    assert gate.first.wait(60)
    threading.Timer(0.2, gate.open).start()
    engine.close()
    assert isinstance(gate.error, EngineClosedError) and isinstance(waiting.error, EngineClosedError)
    assert not engine._thread.is_alive()
    assert engine.measure()["lm"].failed == 2
    # Jobs of an engine that never started end too.
    idle, client = make_engine(start=False), Client()
    idle.complete("lm", "a", GREEDY, client)
    idle.close()
    assert isinstance(client.error, EngineClosedError)


def test_an_idle_engine_uses_no_cpu(engine):
    client = Client()
    engine.complete("lm", "a", GREEDY, client)
    client.finish()
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_the_engine_decodes_in_evaluation_mode_and_restores_it():
    completer, client = make_completer(dropout=0.9), Client()
    completer.model.train()
    engine = Engine({"lm": completer})
    engine.start()
    engine.complete("lm", "a", GREEDY, client)
    client.finish()
    engine.close()
    assert completer.model.training
    assert client.text() == completer.complete(number_prompts(["a"]), GREEDY)[0].completions[0].text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_says_so(monkeypatch):
    engine, running, late = make_engine(start=False), Client(), Client()
    engine.complete("lm", "a", GREEDY, running)

    def fail():
        raise MemoryError

    monkeypatch.setattr(engine, "_take_commands", fail)
    engine.start()
    assert isinstance(running.error, EngineFailedError)
    with pytest.raises(EngineFailedError):
        engine.complete("lm", "a", GREEDY, late)
    engine.close()
