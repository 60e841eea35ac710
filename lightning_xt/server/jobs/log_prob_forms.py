"""Log-probabilities in the forms of OpenAI."""

from collections.abc import Sequence
from typing import Any

from lightning_xt.server.jobs.choice_text import TokenEntry

LEAST = -9999.0
"""Number in place of minus infinity, which JSON does not have."""


def clamp_log_prob(value: float | None) -> float | None:
    """Return a log-probability that JSON can hold."""
    return None if value is None else max(value, LEAST)


def list_completion_log_probs(entries: Sequence[TokenEntry]) -> dict[str, Any]:
    """Return tokens as a completion reports them; the token itself is always among the most likely ones."""
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [clamp_log_prob(entry.log_prob) for entry in entries],
        "top_logprobs": [_collect_alternatives(entry) for entry in entries],
        "text_offset": [entry.offset for entry in entries],
    }


def _collect_alternatives(entry: TokenEntry) -> dict[str, float | None] | None:
    if entry.log_prob is None:
        return None
    found: dict[str, float | None] = {}
    # Of tokens with one text the most likely one counts, which comes first.
    for text, log_prob in entry.alternatives:
        found.setdefault(text, clamp_log_prob(log_prob))
    # Clients compare both numbers.
    found[entry.text] = clamp_log_prob(entry.log_prob)
    return found


def list_chat_log_probs(entries: Sequence[TokenEntry]) -> dict[str, Any]:
    """Return tokens as a chat completion reports them."""
    content = [
        _describe_token(entry.text, entry.log_prob)
        | {"top_logprobs": [_describe_token(*each) for each in entry.alternatives]}
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _describe_token(text: str, log_prob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": clamp_log_prob(log_prob), "bytes": list(text.encode("utf-8", "replace"))}
