"""Jobs at once, of many clients, each against the job alone."""

import random
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
from served_models import Client, complete_alone, make_engine, make_translator

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.generation.filters.repetition_penalty import RepetitionPenalty
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import JobEnd

pytestmark = pytest.mark.usefixtures("no_shape_checks")
GREEDY = GenerationOptions(temperature=0, max_new_tokens=9)
OPTIONS = [
    GREEDY,
    GenerationOptions(max_new_tokens=17, seed=5, top_k=12),
    GenerationOptions(max_new_tokens=6, seed=2, num_return_sequences=3, min_p=0.01),
    GenerationOptions(temperature=0.7, max_new_tokens=12, filters=[partial(RepetitionPenalty, factor=1.5)]),
    GenerationOptions(max_new_tokens=14, window=5, seed=3),
    GenerationOptions(max_new_tokens=14, window=3, seed=3),
    GenerationOptions(max_new_tokens=10, method=partial(BeamSearch, beams=3, n_best=2)),
    GenerationOptions(max_new_tokens=10, temperature=0, method=PromptLookup),
]


def test_jobs_at_once_get_what_each_gets_alone():
    chance = random.Random(1)
    prompts = ["".join(chance.choices("abcdeé ", k=1 + 7 * number % 61)) for number in range(20)]
    engine = make_engine(rows=5, prefill_tokens=16)
    clients, jobs = [Client() for _ in prompts], []
    for number, (prompt, client) in enumerate(zip(prompts, clients, strict=True)):
        options = replace(OPTIONS[number % len(OPTIONS)], seed=number)
        jobs.append(engine.complete("lm", prompt, options, client))
        if number % 5 == 4:
            jobs[number - 1].cancel()
    cancelled = {3, 8, 13, 18}
    for number, (prompt, client) in enumerate(zip(prompts, clients, strict=True)):
        if number in cancelled:
            continue
        client.finish()
        options = replace(OPTIONS[number % len(OPTIONS)], seed=number)
        wanted = complete_alone(prompt, options)
        if options.method is not None and options.method is not PromptLookup:
            assert [each.text for each in client.candidates.completions] == wanted
        else:
            assert [client.text(sequence) for sequence in range(len(wanted))] == wanted
        assert client.threads == {"lightning-xt engine"}
    engine.drain()
    load = engine.measure()["lm"]
    assert (load.running, load.waiting, load.completed, load.failed, load.cancelled) == (0, 0, 16, 0, 4)
    assert all(not isinstance(event, JobEnd) for number in cancelled for event in clients[number].events)


def test_translations_at_once_are_those_of_each_source_alone():
    engine = make_engine()
    chance = random.Random(2)
    sources = [" ".join(chance.choices("3456789", k=1 + number % 7)) for number in range(12)]
    options = [
        GenerationOptions(max_new_tokens=9),
        GenerationOptions(temperature=1.5, max_new_tokens=20, num_return_sequences=2),
        GenerationOptions(max_new_tokens=8, method=partial(BeamSearch, beams=3, n_best=3)),
        GenerationOptions(),
    ]
    clients = [Client() for _ in sources]
    for number, (source, client) in enumerate(zip(sources, clients, strict=True)):
        engine.translate("pairs", source, replace(options[number % 4], seed=number), client)
    for number, (source, client) in enumerate(zip(sources, clients, strict=True)):
        client.finish()
        own = replace(options[number % 4], seed=number)
        (found,) = make_translator().complete(number_prompts([source]), own)
        if own.method is None:
            assert [client.text(n) for n in range(own.num_return_sequences)] == [
                each.text for each in found.completions
            ]
            assert client.tokens() == found.completions[0].tokens
        else:
            assert [each.tokens for each in client.candidates.completions] == [
                each.tokens for each in found.completions
            ]
            assert [each.score for each in client.candidates.completions] == pytest.approx(
                [each.score for each in found.completions]
            )
        assert client.events[-1].prompt_tokens == len(source.split()) + 1
    engine.close()


def test_clients_of_many_threads_that_come_and_leave_change_nothing():
    engine = make_engine(rows=3, prefill_tokens=8)
    wanted = {n: complete_alone("abc" * n, replace(OPTIONS[n % 4], seed=n)) for n in range(6)}
    faults: list[object] = []

    def work(thread: int) -> None:
        chance = random.Random(thread)
        for _ in range(6):
            n, client = chance.randrange(6), Client()
            job = engine.complete("lm", "abc" * n, replace(OPTIONS[n % 4], seed=n), client)
            if chance.random() < 0.4:
                client.first.wait(chance.choice([0, 0.01, 60]))
                job.cancel()
                seen = len(client.events)
                if chance.random() < 0.5:
                    time.sleep(0.01)
                faults.extend(client.events[seen:])
            else:
                texts = [client.finish().text(each) for each in range(len(wanted[n]))]
                faults.extend((n, texts) for _ in range(texts != wanted[n]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    engine.drain()
    load = engine.measure()["lm"]
    assert faults == []
    assert load.completed + load.cancelled == 30 and load.failed == load.running == load.waiting == 0
    assert not engine._workers["lm"].busy
    (scheduler,) = engine._workers["lm"]._sampling._windows.values()
    assert not scheduler.sequences and scheduler.scheduler.running == scheduler.scheduler.waiting == 0
