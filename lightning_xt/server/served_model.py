"""Models by the names under which a server offers them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_xt.data.chat.chat_templates import ChatTemplate
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.text_generator import Kind, TextGenerator
from lightning_xt.server.api_errors import ApiError
from lightning_xt.server.bodies.request_fields import LONGEST_NAME
from lightning_xt.system.messages import explain_unknown

ROUTES: dict[Kind, str] = {"language_model": "/v1/completions", "encoder_decoder": "/v1/translations"}
"""Route of each kind of model."""
DOES: dict[Kind, str] = {"language_model": "continues texts", "encoder_decoder": "translates"}


@dataclass(frozen=True)
class ServedModel:
    """One model of a server.

    Args:
        name: the name by which clients choose it.
        generator: generator of its texts.
        max_length: most tokens of a prompt and its completion. None = any number.
        template: text of conversations.
        alignment: True for an encoder-decoder that can align its translations to their sources.
        compiled: True if its decode steps are compiled, again for each window.
        created: time at which it was loaded, in seconds since 1970.
    """

    name: str
    generator: TextGenerator
    max_length: int | None = None
    template: ChatTemplate = field(default_factory=ChatTemplate)
    alignment: bool = False
    compiled: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    _token_texts: dict[int, str] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> Kind:
        """Kind of the model."""
        return self.generator.kind

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of generated text."""
        return self.generator.output_tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of ids that the model generates."""
        return self.generator.vocab_size

    def require(self, kind: Kind) -> "ServedModel":
        """Return the model; ApiError if it is of another kind than a route needs."""
        if self.kind == kind:
            return self
        raise ApiError(
            400,
            f"model {self.name} {DOES[self.kind]}, which {ROUTES[kind]} does not; send the request to "
            f"{ROUTES[self.kind]}",
            param="model",
            code="wrong_kind",
        )

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the ids of a prompt; ApiError for an id outside the vocabulary."""
        if isinstance(prompt, str):
            return self.tokenizer.encode_prompt(prompt)
        self.check_ids(prompt, "prompt")
        return list(prompt)

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Raise an ApiError for an id outside the vocabulary."""
        if ids and max(ids) >= self.vocab_size:
            raise ApiError(
                400, f"{param} has token {max(ids)}, outside the vocabulary of 0 to {self.vocab_size - 1}", param=param
            )

    def decode_token(self, token: int) -> str:
        """Return the text of one token inside a text, or a name for one that is not a text by itself."""
        found = self._token_texts.get(token)
        if found is None:
            found = self._token_texts[token] = self._name_token(token)
        return found

    def _name_token(self, token: int) -> str:
        tokenizer = self.tokenizer
        for name in ("end", "start", "pad"):
            if getattr(tokenizer, name) == token:
                return f"<{name}>"
        text = tokenizer.spell(token) if token < tokenizer.vocab_size else ""
        return text if text and "\ufffd" not in text else f"token_id:{token}"

    def describe(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model as the API lists it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "lightning-xt",
            "kind": self.kind,
            "max_length": self.max_length,
            "vocab_size": self.vocab_size,
            "alignment": self.alignment,
            "defaults": dict(defaults),
        }


class ModelTable(Mapping[str, ServedModel]):
    """Served models by name."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}

    def __getitem__(self, name: str) -> ServedModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def choose(self, name: str | None) -> ServedModel:
        """Return the model that a request names; ApiError if there is none, or several without a name."""
        if name is None:
            if len(self) > 1:
                raise ApiError(400, f"model is required: there is {', '.join(sorted(self))}", param="model")
            return next(iter(self.values()))
        if name not in self:
            message = explain_unknown("model", name[:LONGEST_NAME], self)
            raise ApiError(404, message, param="model", code="model_not_found")
        return self[name]
