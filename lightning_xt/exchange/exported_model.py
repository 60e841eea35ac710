"""A model on its way to another library."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.nn.adapters.layer_replacement import merge_in_place
from lightning_xt.training.module import TransformerModule

PROBE_TOKENS = 24
"""Tokens of the sequences that are compared with the other library's."""
UNKNOWN_LENGTH = 1024
"""Longest sequence of a model whose training data nobody knows."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        dtype: type of the written weights.
        tokens: most tokens of a sequence. None = those of the longest sequence in training.
    """

    dtype: torch.dtype = torch.float32
    tokens: int | None = None


@dataclass(frozen=True)
class ExportedModel:
    """Model of a run, in evaluation mode on the CPU, with what other libraries want to know of it.

    Args:
        name: the run, as it was typed.
        module: the model.
        options: options of the export.
    """

    name: str
    module: TransformerModule
    options: ExportOptions

    @property
    def config(self) -> dict[str, Any]:
        """Options that the model was built with, complete."""
        return {name: value for name, value in self.module.hparams.items() if not name.startswith("_")}

    @property
    def kind(self) -> str:
        """Name of the model's class."""
        return type(self.module).__name__

    @property
    def network(self) -> nn.Module:
        return self.module.network

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """Tokenizers by use: `target`, and for an encoder-decoder `source`."""
        return self.module.tokenizers

    @property
    def has_one_tokenizer(self) -> bool:
        """True if sources and targets have the same tokenizer, or if there are no sources."""
        configs = [(type(each), each.init_args) for each in self.tokenizers.values()]
        return all(each == configs[0] for each in configs)

    @property
    def target_tokenizer(self) -> Tokenizer:
        """Tokenizer of the tokens that the model generates."""
        return list(self.tokenizers.values())[-1]

    @property
    def vocab_size(self) -> int:
        """Number of different tokens that the model generates."""
        network = self.network
        return (network.decoder if isinstance(network, EncoderDecoder) else network).vocab_size  # type: ignore[return-value]

    @property
    def unused(self) -> list[int]:
        """Tokens that are never generated."""
        tokenizer = self.target_tokenizer
        return list(tokenizer.unused) if tokenizer.vocab_size == self.vocab_size else []

    @property
    def source_size(self) -> int:
        """Number of different source tokens of an encoder-decoder."""
        return cast(EncoderDecoder, self.network).encoder.vocab_size

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence: those of the options, else of the positions, else of the training data."""
        known = (self.options.tokens, getattr(self.network, "max_length", None), self.module.trained_length)
        return next((each for each in known if each is not None), UNKNOWN_LENGTH)

    def check_length(self) -> None:
        """Raise a MisfitError for more tokens than positions."""
        limit, tokens = getattr(self.network, "max_length", None), self.options.tokens
        if limit is not None and tokens is not None and tokens > limit:
            raise MisfitError(
                f"--tokens is {tokens}, but the positions of {self.name} end at {limit}; give at most {limit}"
            )

    def merge(self) -> "ExportedModel":
        """Return the model with its adapter merged into its weights, and without one in its options; all train."""
        return self._merged

    @cached_property
    def _merged(self) -> "ExportedModel":
        if not list_adapter_parameters(self.module):
            return self
        module = copy.deepcopy(self.module)
        merge_in_place(module)
        module.hparams.update(adapter=None, frozen=[])
        return replace(self, module=module.requires_grad_(True))

    @torch.no_grad()
    def round_weights(self, *, vectors: bool = True) -> nn.Module:
        """Return the network with weights rounded to the type of the export, in float32.

        Args:
            vectors: False to leave tensors of one axis as they are.
        """
        if self.options.dtype == torch.float32:
            return self.network
        network = copy.deepcopy(self.network)
        for each in network.state_dict().values():
            if each.is_floating_point() and (vectors or each.dim() > 1):
                each.copy_(each.to(self.options.dtype))
        return network

    @cached_property
    def probe(self) -> tuple[Int[Tensor, "1 n"], ...]:
        """Fixed random ids to compare models with: tokens, or a source and a target."""
        generator = torch.Generator().manual_seed(0)
        sizes = [self.vocab_size]
        if isinstance(self.network, EncoderDecoder):
            sizes.insert(0, self.network.encoder.vocab_size)
        n = min(PROBE_TOKENS, self.max_length)
        return tuple(torch.randint(0, size, (1, n), generator=generator) for size in sizes)
