"""The API with the real engine: texts, scores and alignments are those of the models without a server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from scripted_engine import Client, make_language_model, make_server, make_translator

from lightning_xt import compute_token_losses
from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.serving_engine import Engine


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    models = [make_language_model(), make_translator()]
    engine = Engine({model.name: model.generator for model in models}, rows=4)
    engine.start()
    yield make_server(engine, models)
    engine.close()


def complete(server: Client, prompts: list[str], **options) -> list[list[str]]:
    generator = server.context.models["tiny"].generator
    found = generator.complete(number_prompts(prompts), GenerationOptions(**options))
    return [[completion.text for completion in each.completions] for each in found]


def read_texts(answer: dict) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_greedy_texts_are_those_of_generate_whole_and_streamed(server: Client) -> None:
    body = {"model": "tiny", "prompt": ["the", "a dog"], "max_tokens": 9, "temperature": 0}
    (first,), (second,) = complete(server, ["the", "a dog"], max_new_tokens=9, temperature=0)
    answer = server.post("/v1/completions", body).json()
    assert read_texts(answer) == [first, second] and answer["usage"]["completion_tokens"] == 18
    streamed = ["", ""]
    for chunk in server.stream("/v1/completions", body):
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert streamed == [first, second]


def test_sampled_texts_are_those_of_generate_with_the_same_seed(server: Client) -> None:
    options = {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.001, "seed": 7}
    (expected,) = complete(server, ["the"], max_new_tokens=9, num_return_sequences=3, **options)
    answer = server.post("/v1/completions", {"model": "tiny", "prompt": "the", "max_tokens": 9, "n": 3, **options})
    assert read_texts(answer.json()) == expected


def test_options_that_change_nothing_are_accepted(server: Client) -> None:
    nothing = {"top_p": 1, "top_k": 0, "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
    nothing |= {"repetition_penalty": 1, "n": 1, "best_of": 1, "stop": [], "user": "me", "seed": -5, "suffix": None}
    del nothing["suffix"]
    body = {"model": "tiny", "prompt": "the", "max_tokens": 5, "temperature": 0}
    plain = server.post("/v1/completions", body).json()
    assert read_texts(server.post("/v1/completions", {**body, **nothing}).json()) == read_texts(plain)


def test_penalties_and_biases_change_the_text(server: Client) -> None:
    body = {"model": "tiny", "prompt": "the", "max_tokens": 5, "temperature": 0}
    (biased,) = read_texts(server.post("/v1/completions", {**body, "logit_bias": {"122": 100}}).json())
    assert biased == "zzzzz"
    body |= {"logit_bias": {"122": 100, "121": 99.5}, "presence_penalty": 50}
    assert read_texts(server.post("/v1/completions", body).json())[0].startswith("zy")


def test_scores_of_an_echoed_prompt_are_the_losses_of_its_tokens(server: Client) -> None:
    network = server.context.models["tiny"].generator.model
    losses = compute_token_losses(network, torch.tensor([list(b"the quick")]))[0].tolist()
    body = {"model": "tiny", "prompt": "the quick", "max_tokens": 1, "echo": True, "logprobs": 3, "temperature": 0}
    log_probs = server.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    first, *others, _ = log_probs["token_logprobs"]
    assert first is None and others == pytest.approx([-loss for loss in losses], abs=1e-5)
    assert all(len(top) in (3, 4) for top in log_probs["top_logprobs"][1:])
    alone = server.post("/v1/completions", {**body, "max_tokens": 0}).json()["choices"][0]["logprobs"]
    assert alone["token_logprobs"] == pytest.approx(log_probs["token_logprobs"][:-1])


def test_many_clients_each_get_the_text_that_they_get_alone(server: Client) -> None:
    prompts = [f"{'x' * (n % 5)}{n}" for n in range(12)]
    bodies = [{"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0} for prompt in prompts]
    alone = complete(server, prompts, max_new_tokens=12, temperature=0)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda body: read_texts(server.post("/v1/completions", body).json()), bodies))
    assert found == alone


def test_translations_are_those_of_the_translator(server: Client) -> None:
    generator, sources = server.context.models["pairs"].generator, ["a dog", "the cat"]
    body = {"model": "pairs", "source": sources, "max_tokens": 6}
    greedy = generator.complete(number_prompts(sources), GenerationOptions(max_new_tokens=6))
    items = server.post("/v1/translations", body).json()["translations"]
    assert [item["candidates"][0]["text"] for item in items] == [each.completions[0].text for each in greedy]
    method = partial(BeamSearch, beams=3, n_best=2)
    ranked = generator.complete(number_prompts(sources), GenerationOptions(max_new_tokens=6, method=method))
    items = server.post("/v1/translations", {**body, "beams": 3, "n_best": 2}).json()["translations"]
    for item, each in zip(items, ranked, strict=True):
        assert [found["text"] for found in item["candidates"]] == [best.text for best in each.completions]
        scores = [found["score"] for found in item["candidates"]]
        assert scores == pytest.approx([best.score for best in each.completions], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"beams": 2}, {"temperature": 1.0, "seed": 1}])
def test_an_alignment_has_a_row_for_each_token_that_sums_to_1(server: Client, options: dict) -> None:
    body = {"model": "pairs", "source": "a dog", "max_tokens": 6, "alignment": True, **options}
    (candidate,) = server.post("/v1/translations", body).json()["translations"][0]["candidates"]
    alignment = candidate["alignment"]
    assert len(alignment["weights"]) == len(alignment["target_tokens"]) > 0
    for row in alignment["weights"]:
        assert len(row) == len(alignment["source_tokens"]) and sum(row) == pytest.approx(1, abs=1e-4)
    assert server.stream("/v1/translations", body)[-2]["translations"][0]["candidates"][0] == candidate


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": "tiny", "prompt": ""}, "empty"),
        ({"model": "tiny", "prompt": "a", "n": 128, "max_tokens": 4}, None),
        ({"model": "tiny", "prompt": "a" * 5000}, "the prompt has 5000 tokens"),
    ],
)
def test_what_the_engine_refuses_is_a_sentence(server: Client, body: dict, message: str | None) -> None:
    found = server.post("/v1/completions", body)
    if message is None:
        assert len(found.json()["choices"]) == 128
    else:
        assert found.status_code == 400 and message in found.json()["error"]["message"]
    assert all(load.running == load.waiting == 0 for load in server.context.engine.measure().values())
