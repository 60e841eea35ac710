"""Completions and chat completions over HTTP: forms of answers, streams, log-probabilities, echo."""

import json
from functools import partial

import pytest
import torch
from made_tokenizers import content, library
from scripted_engine import ScriptedEngine, make_language_model, make_server

from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.inference.serving.events import JobEnd, SequenceEnd, TokenEvent
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.models.decoder import Decoder
from lightning_xt.server.served_model import ServedModel

# A request of lm-eval 0.4 (models/openai_completions.py, local-completions, loglikelihood), with ids as it sends them.
LM_EVAL_SCORES = {
    "model": "tiny",
    "prompt": [[116, 104, 101, 32, 102, 111, 120], [97, 32, 100, 111, 103]],
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": 1,
    "seed": 1234,
    "echo": True,
}
# The same for texts that the model generates (generate_until).
LM_EVAL_TEXTS = {
    "prompt": [[116, 104, 101]],
    "model": "tiny",
    "max_tokens": 256,
    "temperature": 0,
    "stop": ["\n\n", "Question:"],
    "seed": 1234,
}


def read_scores(answer: dict, context_lengths: list[int]) -> list[tuple[float, bool]]:
    """Read an answer as lm-eval's `parse_logprobs` does."""
    found = []
    for choice, length in zip(sorted(answer["choices"], key=lambda each: each["index"]), context_lengths, strict=True):
        values = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        found.append((sum(values), greedy))
    return found


def test_a_completion_has_the_form_of_openai() -> None:
    found = make_server().post("/v1/completions", {"model": "tiny", "prompt": "the", "max_tokens": 4, "user": "me"})
    assert found.status_code == 200
    answer = found.json()
    assert answer.pop("id").startswith("cmpl-") and answer.pop("created") > 1_700_000_000
    choice = {"index": 0, "text": " fox", "logprobs": None, "finish_reason": "length"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert answer == {"object": "text_completion", "model": "tiny", "choices": [choice], "usage": usage}


def test_a_stream_has_the_same_text_in_pieces_then_the_reason_and_the_usage() -> None:
    chunks = make_server().stream(
        "/v1/completions", {"prompt": "the", "stream_options": {"include_usage": True}, "max_tokens": 4}
    )
    *pieces, usage = chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in pieces) == " fox"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in pieces]
    assert reasons == [None] * (len(pieces) - 1) + ["length"]
    assert len({chunk["id"] for chunk in chunks}) == 1 and all(chunk["usage"] is None for chunk in pieces)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 4


def test_choices_are_numbered_by_prompt_then_by_completion() -> None:
    server = make_server()
    body = {"prompt": ["a", "b", "a"], "n": 2, "seed": 5}
    choices = server.post("/v1/completions", body).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3, 4, 5]
    kinds, prompts, options, others = zip(*server.context.engine.calls, strict=True)
    assert set(kinds) == {"complete"} and prompts == ([97], [98], [97])
    assert all(each.num_return_sequences == 2 for each in options)
    # An equal prompt samples other tokens.
    assert {each.seed for each in options} == {5} and [each["repeat"] for each in others] == [0, 0, 1]
    streamed = {chunk["choices"][0]["index"] for chunk in server.stream("/v1/completions", body)}
    assert streamed == set(range(6))


def test_requests_without_a_seed_differ() -> None:
    server = make_server()
    for _ in range(2):
        server.post("/v1/completions", {"prompt": "a"})
    first, second = (call[2].seed for call in server.context.engine.calls)
    assert first != second


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_has_the_seed_that_repeats_it(streamed: bool) -> None:
    server = make_server()
    drawn = server.post("/v1/completions", {"prompt": "a", "stream": streamed}).headers["x-seed"]
    chat = {"messages": [{"role": "user", "content": "a"}], "seed": int(drawn), "stream": streamed}
    assert server.post("/v1/chat/completions", chat).headers["x-seed"] == drawn
    first, second = (call[2].seed for call in server.context.engine.calls)
    assert first == second == int(drawn)


def test_options_reach_the_engine() -> None:
    server = make_server()
    body = {"prompt": "a", "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "max_tokens": 7, "stop": "x"}
    body |= {"presence_penalty": 1, "frequency_penalty": 0.5, "repetition_penalty": 1.5, "logit_bias": {"5": -100}}
    assert server.post("/v1/completions", {**body, "window": 8, "logprobs": 3}).status_code == 200
    ((_, _, options, others),) = server.context.engine.calls
    given = (options.temperature, options.top_p, options.top_k, options.min_p, options.max_new_tokens, options.window)
    assert given == (0.5, 0.9, 4, 0.1, 7, 8) and list(options.stop) == ["x"] and others["alternatives"] == 3
    filters = {type(make()).__name__ for make in options.filters}
    assert filters == {"PresencePenalty", "FrequencyPenalty", "RepetitionPenalty", "LogitBias"}


@pytest.mark.parametrize(
    ("given", "max_length", "expected"), [(None, None, 256), (None, 20, 17), (9, None, 9), (17, 20, 17)]
)
def test_the_limit_of_tokens_fits_the_model(given: int | None, max_length: int | None, expected: int) -> None:
    server = make_server(models=[make_language_model(max_length=max_length)])
    assert server.post("/v1/completions", {"prompt": "the", "max_tokens": given}).status_code == 200
    assert server.context.engine.calls[0][2].max_new_tokens == expected


def test_log_probs_have_a_place_for_each_token_and_the_end_token() -> None:
    # The model's bytes have no end token, so 10 stands for it.
    model = make_language_model()
    model.tokenizer.end = 10
    end = [TokenEvent(0, 10, -0.75, ""), SequenceEnd(0, "", "stop"), JobEnd(1, 3)]
    first = [TokenEvent(0, 195, -0.5, "", ((195, -0.5), (97, -1.0))), TokenEvent(0, 188, -0.1, "ü")]
    server = make_server(ScriptedEngine(events=[*first, *end]), [model])
    answer = server.post("/v1/completions", {"prompt": "a", "logprobs": 2}).json()["choices"][0]
    assert answer["text"] == "ü" and answer["finish_reason"] == "stop"
    assert answer["logprobs"] == {
        "tokens": ["token_id:195", "token_id:188", "<end>"],
        "token_logprobs": [-0.5, -0.1, -0.75],
        "top_logprobs": [{"token_id:195": -0.5, "a": -1.0}, {"token_id:188": -0.1}, {"<end>": -0.75}],
        "text_offset": [0, 0, 1],
    }


def test_tokens_keep_the_space_that_their_tokenizer_drops_at_the_beginning() -> None:
    tokenizer = TokenizerFile(model=content("llama2"))
    completer = TextCompleter(Decoder(tokenizer.vocab_size, dim=16, depth=1), tokenizer, torch.device("cpu"))
    model = ServedModel("llama", completer)
    ids = tokenizer.encode("the quick the")
    assert "".join(map(model.decode_token, ids)) == " the quick the"
    assert model.decode_token(tokenizer.end) == "<end>"


def test_tokens_wait_for_their_text_and_those_of_a_stop_string_are_dropped() -> None:
    held = [TokenEvent(0, ord(c), -0.5, t) for c, t in zip("a\nb\n\n", ["a", "", "\nb", "", ""], strict=True)]
    events = [*held, SequenceEnd(0, "", "stop"), JobEnd(1, 5)]
    server = make_server(ScriptedEngine(events=events))
    chunks = server.stream("/v1/completions", {"prompt": "x", "logprobs": 0, "stop": "\n\n"})
    parts = [(c["choices"][0]["text"], c["choices"][0]["logprobs"]["tokens"]) for c in chunks]
    assert parts == [("a", ["a"]), ("\nb", ["\n", "b"]), ("", [])]


def test_echo_begins_with_the_prompt_and_its_scores() -> None:
    server = make_server()
    body = {"prompt": "the", "echo": True, "max_tokens": 4, "logprobs": 1}
    answer = server.post("/v1/completions", body).json()
    choice = answer["choices"][0]
    assert choice["text"] == "the fox"
    assert choice["logprobs"]["tokens"] == list("the fox") and choice["logprobs"]["text_offset"] == list(range(7))
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5, -0.25, -0.25, -0.25, -0.25]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    chunks = server.stream("/v1/completions", body)
    assert chunks[0]["choices"][0]["text"] == "the"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "the fox"


@pytest.mark.parametrize("log_probs", [None, 1])
def test_echo_without_new_tokens_only_scores(log_probs: int | None) -> None:
    server = make_server()
    body = {"prompt": [116, 104], "echo": True, "max_tokens": 0, "logprobs": log_probs}
    answer = server.post("/v1/completions", body).json()
    assert answer["choices"][0]["text"] == "th" and answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}
    assert [call[0] for call in server.context.engine.calls] == ([] if log_probs is None else ["score"])


def test_lm_eval_reads_the_scores_of_its_request() -> None:
    answer = make_server(ScriptedEngine("!")).post("/v1/completions", LM_EVAL_SCORES).json()
    # Log-probabilities of what follows 4 and 2 tokens of context, without the generated token.
    assert read_scores(answer, [4, 2]) == [(-1.5, True), (-1.5, True)]


def test_lm_eval_reads_the_texts_of_its_request() -> None:
    answer = make_server(ScriptedEngine(" dog", reason="stop")).post("/v1/completions", LM_EVAL_TEXTS).json()
    assert [choice["text"] for choice in answer["choices"]] == [" dog"]


def test_a_chat_completion_has_the_form_of_openai() -> None:
    server = make_server()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "max_completion_tokens": 4}).json()
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    message = {"role": "assistant", "content": " fox", "refusal": None}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]
    ((_, prompt, options, _),) = server.context.engine.calls
    assert bytes(prompt).decode() == "Be brief.\n\nUser: hi\nAssistant: "
    assert list(options.stop) == ["\nUser:"] and options.max_new_tokens == 4


def test_a_conversation_is_encoded_as_in_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    messages = [
        {"role": role, "content": f" the {role}'s mat"} for role in ("system", "user", "assistant", "user", "assistant")
    ]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": messages}))
    tokenizer = partial(TokenizerFile, model=content("gpt2"))
    data = Conversations(str(tmp_path / "chat.jsonl"), tokenizer=tokenizer, validation=0, test=0, batch_size=1)
    data.setup("fit")
    tokens, scored, _ = next(iter(data.train_dataloader()))
    decoder = Decoder(data.tokenizer.vocab_size, dim=16, depth=1)
    completer = TextCompleter(decoder, data.tokenizer, torch.device("cpu"))
    server = make_server(ScriptedEngine(), [ServedModel("tiny", completer)])
    ends = []
    for number in (2, 4):
        server.post("/v1/chat/completions", {"messages": messages[:number]})
        prompt = list(server.context.engine.calls[-1][1])
        assert prompt == tokens[0, : len(prompt)].tolist() and scored[0, len(prompt) - 1]
        assert not scored[0, len(prompt) - 2]
        ends.append(len(prompt))
    assert data.tokenizer.decode(tokens[0, ends[0] : ends[1]].tolist()).startswith(" the assistant's mat\nUser:")


def test_an_answer_begins_a_text_and_a_last_message_of_the_assistant_is_continued() -> None:
    server = make_server()
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]
    for number, content_, new_text in ((1, "you", True), (2, "you", False), (2, "", True)):
        messages[1]["content"] = content_
        server.post("/v1/chat/completions", {"messages": messages[:number]})
        assert server.context.engine.calls[-1][3]["new_text"] is new_text
    server.post("/v1/completions", {"prompt": "hi"})
    assert server.context.engine.calls[-1][3]["new_text"] is False


def test_places_of_tokens_count_the_space_of_the_first() -> None:
    tokenizer = TokenizerFile(model=content("t5"))
    completer = TextCompleter(Decoder(tokenizer.vocab_size, dim=16, depth=1), tokenizer, torch.device("cpu"))
    cat, sat = (tokenizer.encode(text) for text in ("the cat", "the cat sat"))
    rest = sat[len(cat) :]
    events = [TokenEvent(0, token, -0.5, tokenizer.spell(token)) for token in rest]
    engine = ScriptedEngine(events=[*events, SequenceEnd(0, "", "length"), JobEnd(len(cat), len(rest))])
    server = make_server(engine, [ServedModel("tiny", completer)])
    choice = server.post("/v1/completions", {"prompt": "the cat", "logprobs": 0}).json()["choices"][0]
    tokens = choice["logprobs"]["tokens"]
    assert "".join(tokens) == choice["text"] == " sat"
    assert choice["logprobs"]["text_offset"] == [len("".join(tokens[:n])) for n in range(len(tokens))]


def test_a_conversation_that_the_tokenizer_refuses_is_answered_with_its_sentence() -> None:
    completer = TextCompleter(Decoder(256, dim=16, depth=1), Bytes(separator=10), torch.device("cpu"))
    server = make_server(models=[ServedModel("tiny", completer)])
    body = {"messages": [{"role": "user", "content": "hi"}]}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400, answer.json()
    assert "byte 8 of a text is 10, which separates documents" in answer.json()["error"]["message"]


def test_a_streamed_chat_begins_with_the_role() -> None:
    chunks = make_server().stream("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == " fox"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_log_probs_of_a_chat_have_bytes() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2}
    found = make_server().post("/v1/chat/completions", body).json()["choices"][0]["logprobs"]["content"][1]
    token = {"token": "f", "logprob": -0.25, "bytes": [102]}
    assert found == {**token, "top_logprobs": [token, {"token": "x", "logprob": -2.0, "bytes": [120]}]}


def test_tokens_that_begin_a_word_have_their_space() -> None:
    tokenizer = TokenizerFile(model=content("llama2"))
    vocabulary = tokenizer.vocab_size
    completer = TextCompleter(Decoder(vocabulary, dim=16, depth=1), tokenizer, torch.device("cpu"))
    one, other = (library("llama2").token_to_id(piece) for piece in ("\u2581mat", "mat"))
    log_probs = (
        TokenEvent(0, one, -0.5, "mat", ((one, -0.5), (other, -1.0))),
        SequenceEnd(0, "", "length"),
        JobEnd(1, 1),
    )
    server = make_server(ScriptedEngine(events=list(log_probs)), [ServedModel("tiny", completer)])
    body = {"prompt": [one], "max_tokens": 1, "logprobs": 2}
    found = server.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    assert found["tokens"] == [" mat"] and found["top_logprobs"] == [{" mat": -0.5, "mat": -1.0}]
