"""Translations over HTTP: sources, beams, alignments, streams."""

import pytest
from scripted_engine import ScriptedEngine, make_server, make_translator

from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.serving.events import Alignment, Candidates, JobEnd
from lightning_xt.inference.text_generator import Completion

ALIGNMENT = Alignment(["a", "</s>"], ["ein"], [[0.25, 0.75]])


def make_ranking_engine() -> ScriptedEngine:
    completions = [
        Completion([TextPiece(text)], score, [5], [score]) for text, score in (("ein", -1.0), ("eine", -2.0))
    ]
    return ScriptedEngine(events=[Candidates(completions, [ALIGNMENT, ALIGNMENT]), JobEnd(2, 2)])


def test_a_greedy_translation_has_one_candidate_for_each_source() -> None:
    server = make_server(ScriptedEngine("ein"), [make_translator()])
    answer = server.post("/v1/translations", {"model": "pairs", "source": ["a dog", "a cat"]}).json()
    candidate = {"text": "ein", "score": -0.75, "alignment": None}
    items = [{"index": n, "source": s, "candidates": [candidate]} for n, s in enumerate(["a dog", "a cat"])]
    usage = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    assert answer == {"object": "translations", "model": "pairs", "translations": items, "usage": usage}
    assert (
        int(server.post("/v1/translations", {"source": "a"}).headers["x-seed"])
        == server.context.engine.calls[-1][2].seed
    )
    assert all(call[2].temperature is None and call[2].method is None for call in server.context.engine.calls)


def test_beams_give_the_n_best_with_alignments() -> None:
    server = make_server(make_ranking_engine(), [make_translator()])
    body = {"source": "a", "beams": 4, "n_best": 2, "length_penalty": 0.5, "alignment": True}
    candidates = server.post("/v1/translations", body).json()["translations"][0]["candidates"]
    assert [(each["text"], each["score"]) for each in candidates] == [("ein", -1.0), ("eine", -2.0)]
    aligned = {"source_tokens": ["a", "</s>"], "target_tokens": ["ein"], "weights": [[0.25, 0.75]]}
    assert candidates[0]["alignment"] == aligned
    ((_, _, options, others),) = server.context.engine.calls
    method = options.build_method()
    assert (method.beams, method.n_best, method.length_penalty) == (4, 2, 0.5) and others == {
        "alignment": True,
        "repeat": 0,
    }


def test_a_stream_has_text_then_the_candidates_then_the_usage() -> None:
    server = make_server(ScriptedEngine("ein"), [make_translator()])
    *texts, whole, usage = server.stream("/v1/translations", {"source": "a"})
    assert "".join(chunk["translations"][0]["text"] for chunk in texts) == "ein"
    assert whole["translations"][0]["candidates"][0]["text"] == "ein"
    assert usage["translations"] == [] and usage["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"source": ["a", " "]}, "source 2 is empty; give a text to translate"),
        ({"source": ""}, "source is empty; give a text to translate"),
        ({"source": "a", "beams": 2, "n_best": 3}, "n_best is 3, but 2 beams give at most 2; lower it"),
        ({"source": "a", "beams": 0}, "beams is 0, but it should be greater than or equal to 1"),
        ({"source": 3}, "source is 3, but it should be a text or a list of texts"),
        ({"source": "a", "max_tokens": 5000}, "max_tokens is 5000, but this server generates at most 4096"),
        (
            {"source": ["a" * 600] * 2, "alignment": True},
            "the alignments may have 1483268 weights, one for each token of a source and of its translation, but an "
            "answer may have 1000000; lower n_best or max_tokens, or send several requests",
        ),
        ({"source": "a", "beem": 2}, "unknown field 'beem'; did you mean beams?"),
        ({}, "source is required"),
    ],
)
def test_a_wrong_request_is_refused(body: dict, message: str) -> None:
    found = make_server(models=[make_translator()]).post("/v1/translations", body)
    assert (found.status_code, found.json()["error"]["message"]) == (400, message)


def test_a_source_of_which_a_part_would_be_ignored_is_refused() -> None:
    model = make_translator()
    model.generator.max_source_ids = 4
    found = make_server(models=[model]).post("/v1/translations", {"source": "a dog runs"})
    assert found.status_code == 400 and found.json()["error"]["code"] == "context_length_exceeded"
    assert found.json()["error"]["message"].startswith(
        "source is too long: it has 10 tokens; only the first 3 are used"
    )


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_a_route_that_the_kind_cannot_serve_names_the_right_one(route: str) -> None:
    body = {"prompt": "a"} if route == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    found = make_server(models=[make_translator()]).post(route, body)
    sentence = "model pairs translates, which /v1/completions does not; send the request to /v1/translations"
    assert (found.status_code, found.json()["error"]["message"]) == (400, sentence)
