"""Generation options of a request."""

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning_xt.generation.filters.base import FilterFactory
from lightning_xt.generation.filters.frequency_penalty import FrequencyPenalty
from lightning_xt.generation.filters.logit_bias import LogitBias
from lightning_xt.generation.filters.presence_penalty import PresencePenalty
from lightning_xt.generation.filters.repetition_penalty import RepetitionPenalty
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import MAX_NEW_TOKENS
from lightning_xt.server.api_errors import ApiError
from lightning_xt.server.bodies.request_fields import SamplingFields
from lightning_xt.server.bodies.translation_body import TranslationBody
from lightning_xt.server.served_model import ServedModel

MOST_LOG_PROBS = 1_000_000
"""Most log-probabilities of an answer, which is kept whole until it is sent."""


def draw_seed() -> int:
    """Draw the seed of a request that has none."""
    return secrets.randbits(31)


def limit_tokens(model: ServedModel, prompt: Sequence[int], requested: int | None, most: int) -> int:
    """Return the most tokens to generate after a prompt; ApiError if the model has no room for them.

    Args:
        model: the model.
        prompt: ids of the prompt.
        requested: tokens that the request asks for. None = 256, or as many as fit.
        most: most tokens that the server generates for a request.
    """
    if requested is not None and requested > most:
        raise ApiError(400, f"max_tokens is {requested}, but this server generates at most {most}", param="max_tokens")
    room = None if model.max_length is None else model.max_length - len(prompt)
    least = 0 if requested == 0 else 1
    if room is not None and room < max(least, requested or 0):
        given = "not set" if requested is None else requested
        way = "shorten the prompt" if room < 1 else f"shorten the prompt or ask for at most {room} tokens"
        raise ApiError(
            400,
            f"the prompt has {len(prompt)} tokens and max_tokens is {given}, but prompt and completion may have "
            f"{model.max_length} tokens together; {way}",
            param="prompt",
            code="context_length_exceeded",
        )
    if requested is not None:
        return requested
    return min(each for each in (MAX_NEW_TOKENS, most, room) if each is not None)


def check_answer_size(tokens: int, alternatives: int | None) -> None:
    """Raise an ApiError for an answer that would take too much memory.

    Args:
        tokens: most tokens of all completions, and of prompts whose log-probabilities are reported.
        alternatives: most likely tokens to report with each token. None = no log-probabilities.
    """
    if alternatives is None and tokens > MOST_LOG_PROBS:
        raise ApiError(
            400,
            f"the completions may have {tokens} tokens, but those of an answer may have {MOST_LOG_PROBS}; lower n or "
            "max_tokens, or send several requests",
            code="answer_too_large",
        )
    count = tokens * (1 + (alternatives or 0))
    if count > MOST_LOG_PROBS:
        raise ApiError(
            400,
            f"at most {tokens} tokens with {alternatives} alternatives each make {count} log-probabilities, but an "
            f"answer may have {MOST_LOG_PROBS}; lower n, max_tokens or logprobs, or send several requests",
            code="answer_too_large",
        )


def check_sequences(prompts: int, n: int, most: int) -> None:
    """Raise an ApiError for a request that no queue could hold, however long it waits.

    Args:
        prompts: number of prompts or sources.
        n: sequences of each.
        most: most sequences that are decoded or wait.
    """
    if prompts > 1 and prompts * n > most:
        raise ApiError(
            400,
            f"the request has {prompts * n} sequences, but at most {most} may be decoded or wait here (--rows and "
            "--max_waiting); send several requests",
            code="too_many_sequences",
        )


def check_alignment_size(weights: int) -> None:
    """Raise an ApiError for alignments that would take too much memory."""
    if weights > MOST_LOG_PROBS:
        raise ApiError(
            400,
            f"the alignments may have {weights} weights, one for each token of a source and of its translation, but "
            f"an answer may have {MOST_LOG_PROBS}; lower n_best or max_tokens, or send several requests",
            code="answer_too_large",
        )


def build_completion_options(
    body: SamplingFields, model: ServedModel, *, max_new_tokens: int, seed: int, stop: Sequence[str]
) -> GenerationOptions:
    """Return the options of a completion; ApiError if several would be the same, or for a window of compiled steps."""
    n = body.n or 1
    if body.window is not None and model.compiled:
        raise ApiError(
            400,
            f"window is {body.window}, but this server compiles decode steps, which takes long for each window; omit "
            "it, or use a server without --compile",
            param="window",
        )
    if n > 1 and body.temperature == 0:
        raise ApiError(
            400, f"n is {n}, but at temperature 0 all completions would be the same; raise the temperature", param="n"
        )
    return GenerationOptions(
        max_new_tokens=max_new_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        filters=_make_filters(body, model),
        top_k=body.top_k or None,
        top_p=body.top_p,
        min_p=body.min_p,
        stop=list(dict.fromkeys(stop)),
        num_return_sequences=n,
        window=body.window,
        seed=seed,
    )


def _make_filters(body: SamplingFields, model: ServedModel) -> list[FilterFactory]:
    filters: list[FilterFactory] = []
    if body.logit_bias:
        biases = {int(token): bias for token, bias in body.logit_bias.items()}
        model.check_ids(list(biases), "logit_bias")
        filters.append(partial(LogitBias, biases))
    if body.repetition_penalty not in (None, 1.0):
        filters.append(partial(RepetitionPenalty, body.repetition_penalty))
    if body.presence_penalty:
        filters.append(partial(PresencePenalty, body.presence_penalty))
    if body.frequency_penalty:
        filters.append(partial(FrequencyPenalty, body.frequency_penalty))
    return filters


def build_translation_options(body: TranslationBody, *, most: int, seed: int) -> GenerationOptions:
    """Return the options of a translation; ApiError for more tokens than the server generates."""
    if body.max_tokens is not None and body.max_tokens > most:
        raise ApiError(
            400, f"max_tokens is {body.max_tokens}, but this server generates at most {most}", param="max_tokens"
        )
    options: dict[str, Any] = {}
    if body.num_beams > 1:
        penalty = 1.0 if body.length_penalty is None else body.length_penalty
        n_best = body.n_best or 1
        options["method"] = partial(BeamSearch, beams=body.num_beams, n_best=n_best, length_penalty=penalty)
    return GenerationOptions(
        max_new_tokens=body.max_tokens,
        temperature=body.temperature,
        top_k=body.top_k or None,
        top_p=body.top_p,
        min_p=body.min_p,
        seed=seed,
        **options,
    )
