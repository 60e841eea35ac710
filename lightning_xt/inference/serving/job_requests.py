"""Requests of jobs, checked in the thread of their client."""

from collections.abc import Sequence
from dataclasses import replace

from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import Request
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import LengthError
from lightning_xt.inference.serving.generation_task import JobRequests
from lightning_xt.inference.serving.work_limits import WorkLimits
from lightning_xt.inference.text_completer import MAX_NEW_TOKENS, TextCompleter
from lightning_xt.inference.text_generator import GenerationSession
from lightning_xt.inference.translation import Translator
from lightning_xt.system.option_checks import check_option


def build_completion(
    completer: TextCompleter,
    prompt: str | Sequence[int],
    options: GenerationOptions,
    alternatives: int,
    limits: WorkLimits,
    repeat: int = 0,
    new_text: bool = False,
) -> JobRequests:
    """Build the requests of a completion; ValueError if one is invalid or too long.

    An unset `max_new_tokens` is the default of completions, or what fits after the prompt. With `new_text` the
    completion begins a text, as the answer of a conversation does.
    """
    ids = encode_prompt(completer, prompt)
    # Before work that grows with the length.
    limits.check_prompt(len(ids))
    if options.max_new_tokens is None:
        options = replace(options, max_new_tokens=min(MAX_NEW_TOKENS, limits.tokens - len(ids)))
    session = completer.open_session(options)
    request = completer.build_request(ids, session.options, repeat)
    return _check(session, replace(request, after=None) if new_text else request, alternatives, limits)


def build_translation(
    translator: Translator,
    source: str,
    options: GenerationOptions,
    alternatives: int,
    limits: WorkLimits,
    repeat: int = 0,
) -> JobRequests:
    """Build the requests of a translation, whose source is not encoded yet; ValueError if invalid or too long."""
    if not source.strip():
        raise ValueError("the source is empty; give text to translate")
    ids, problem = translator.tokenize_source(source)
    if problem is not None:
        raise LengthError(f"the source is too long: {problem}; shorten it", "source")
    if len(ids) > limits.tokens:
        raise LengthError(
            f"the source has {len(ids)} tokens, but at most {limits.tokens} are read here; shorten it", "source"
        )
    session = translator.open_session(options)
    request = translator.build_request(ids, source, options, repeat)
    if options.max_new_tokens is None and request.total_length > limits.tokens > request.prompt_length:
        request = replace(request, max_new_tokens=limits.tokens - request.prompt_length)
    return replace(_check(session, request, alternatives, limits), source=ids)


def encode_prompt(completer: TextCompleter, prompt: str | Sequence[int]) -> list[int]:
    """Return the ids of a prompt, text or ids; ValueError if it is empty or has an id outside the vocabulary."""
    ids = completer.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
    if not ids:
        raise ValueError("the prompt is empty, and the model has no start token; give at least one character or token")
    size = completer.model.vocab_size
    wrong = next((each for each in ids if isinstance(each, bool) or not isinstance(each, int)), None)
    if wrong is not None:
        raise ValueError(f"the prompt has {wrong!r:.40} among its tokens; give whole numbers")
    outside = next((each for each in ids if not 0 <= each < size), None)
    if outside is not None:
        raise ValueError(f"the prompt has token {outside}, outside the vocabulary of 0 to {size - 1}")
    return ids


def _check(session: GenerationSession, request: Request, alternatives: int, limits: WorkLimits) -> JobRequests:
    """Check the request of a session, and repeat it for each of its sequences."""
    method, model = session.method, session.model
    check_option("generation", "alternatives", alternatives, least=0, most=model.vocab_size)
    if alternatives and not isinstance(method, Sample):
        raise ValueError(
            f"alternatives are known of sampled tokens only, but the method is {type(method).__name__}; omit one of "
            "the two"
        )
    copies = session.options.num_return_sequences
    limits.check_sequences(copies, method.rows_per_request)
    params = replace(session.make_params(lambda number: request.after), alternatives=alternatives)
    # The model's positions first: their limit cannot be raised.
    check_requests(model, [request], params)
    limits.check_request(request)
    requests = [replace(request, seed=request.seed + copy) for copy in range(copies)]
    method.check(model, requests, params)
    return JobRequests(session, params, requests)
