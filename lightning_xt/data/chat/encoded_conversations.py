"""Conversations as ids, with a mask of the responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.chat.chat_templates import Span
from lightning_xt.data.text.mapped_tokens import choose_token_type
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.repetition import refuse_random

CHUNK = 1 << 12
"""Conversations that are encoded at once; a library's threads share them."""


@dataclass(frozen=True)
class EncodedConversations:
    """Conversations as ids, one after another.

    Args:
        ids: the ids of all conversations.
        scored: True for the ids of responses, an end id after the last included.
        offsets: start of each conversation, and the end of the last.
        too_long: number of conversations with more tokens than the limit.
        dropped: number of those that are not among these.
        response_bytes: bytes of the text of all responses.
    """

    ids: NDArray[Any]
    scored: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    too_long: int
    dropped: int
    response_bytes: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of ids of each conversation."""
        return np.diff(self.offsets)


def encode_spans(tokenizer: Tokenizer, spans: Sequence[Span]) -> list[int]:
    """Encode the prompt of a conversation span by span, after the start id if there is one."""
    opening = [] if tokenizer.start is None else [tokenizer.start]
    return [*opening, *chain.from_iterable(tokenizer.encode_batch([span.text for span in spans]))]


def encode_conversations(
    conversations: Sequence[Sequence[Span]], tokenizer: Tokenizer, limit: int, too_long: Literal["drop", "truncate"]
) -> EncodedConversations:
    """Encode conversations: the start id, the spans and the end id, of which the tokenizer may have none.

    Args:
        conversations: spans of each.
        tokenizer: a tokenizer that has learned.
        limit: most ids of a conversation.
        too_long: whether longer ones are dropped, or cut on the right and dropped if no id of a response is left.

    Raises:
        ValueError: the tokenizer draws random numbers.
    """
    parts = [
        _encode_some(conversations[first : first + CHUNK], tokenizer, limit, too_long)
        for first in range(0, max(1, len(conversations)), CHUNK)
    ]
    lengths = np.concatenate([[0], *(part.lengths for part in parts)])
    return EncodedConversations(
        ids=np.concatenate([part.ids for part in parts]),
        scored=np.concatenate([part.scored for part in parts]),
        offsets=np.cumsum(lengths, dtype=np.int64),
        too_long=sum(part.too_long for part in parts),
        dropped=sum(part.dropped for part in parts),
        response_bytes=sum(part.response_bytes for part in parts),
    )


def _encode_some(
    conversations: Sequence[Sequence[Span]], tokenizer: Tokenizer, limit: int, too_long: Literal["drop", "truncate"]
) -> EncodedConversations:
    texts = [span.text for spans in conversations for span in spans]
    found = tokenizer.encode_arrays(texts)
    refuse_random(tokenizer, texts[:8], found[:8])
    encoded = iter(found)
    opening, closing = (
        np.asarray([] if each is None else [each], dtype=np.uint32) for each in (tokenizer.start, tokenizer.end)
    )
    ids: list[NDArray[np.uint32]] = []
    scored: list[NDArray[np.bool_]] = []
    excess = num_bytes = 0
    for spans in conversations:
        parts = [opening, *(next(encoded) for _ in spans), closing]
        flags = [False, *(span.is_response for span in spans), True]
        whole, counted = np.concatenate(parts), np.repeat(flags, [len(part) for part in parts])
        # Nothing comes before the first token that could predict it.
        counted[:1] = False
        size, total = sum(len(span.text.encode()) for span in spans if span.is_response), int(counted.sum())
        if len(whole) > limit:
            excess += 1
            whole, counted = whole[:limit], counted[:limit]
            if too_long == "drop" or not counted.any():
                continue
            # In proportion, because a token need not be whole characters.
            size = size * int(counted.sum()) // total
        ids.append(whole)
        scored.append(counted)
        num_bytes += size
    return EncodedConversations(
        ids=np.concatenate([*ids, opening[:0]]).astype(choose_token_type(tokenizer.vocab_size)),
        scored=np.concatenate([*scored, np.zeros(0, dtype=np.bool_)]),
        offsets=np.cumsum([0, *(len(each) for each in ids)], dtype=np.int64),
        too_long=excess,
        dropped=len(conversations) - len(ids),
        response_bytes=num_bytes,
    )
