"""Base of the models of this package for `transformers`: building, loading, embeddings, decoding and losses."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.core.inputs import Inputs
from lightning_xt.exchange.own_format.model_entry import build_model
from lightning_xt.exchange.own_format.own_folder import find_shared
from lightning_xt.exchange.remote_code.padding import RightPadded
from lightning_xt.exchange.remote_code.remote_cache import RemoteCache
from lightning_xt.exchange.remote_code.remote_config import RemoteConfig

CACHE_FIELD = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""Name of the cache in outputs; versions before 5.24 have the second."""
WITHOUT_EFFECT = frozenset({"return_dict", "cache_position", "token_type_ids"})
IGNORED = -100
"""Label of a token that does not count."""


class RemoteModel(PreTrainedModel, GenerationMixin):
    """Network of this package as a model of `transformers`, with the names of its tensors here.

    Args:
        config: a config whose `lightning_xt` describes the model.
    """

    config_class = RemoteConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs: ClassVar = True

    def __init__(self, config: RemoteConfig) -> None:
        super().__init__(config)
        dtype = torch.get_default_dtype()
        # `from_pretrained` would build on no device, where buffers get no values, and in the type of the weights.
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                module = build_model("config.json", getattr(config, METADATA_KEY)).to(dtype)
        finally:
            torch.set_default_dtype(dtype)
        for name, child in module.named_children():
            self.add_module(name, child)
        self._network = next(name for name, child in module.named_children() if child is module.network)
        self.visible_prompts = module.objective.visible_prompts
        """True for a prefix language model, whose prompts see themselves whole."""
        self._shared = self._tied_weights_keys = find_shared(self)
        self._derived = {name: buffer.clone() for name, buffer in _list_derived(self).items()}
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **options: Any) -> Any:
        """Load a model as `transformers` does.

        Raises:
            ValueError: a tensor is missing or left over.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **options)
        model, info = loaded
        problems = [f"{name} is missing" for name in sorted(info["missing_keys"])]
        problems += [f"{name} is left over" for name in sorted(info["unexpected_keys"])]
        if problems:
            raise ValueError(f"the tensors do not fit config.json: {'; '.join(problems[:6])}; copy the folder again")
        model._restore_derived()
        return (model, info) if output_loading_info else model

    def _restore_derived(self) -> None:
        """Give buffers that no file holds their values, which loading loses."""
        for name, current in _list_derived(self).items():
            place, _, leaf = name.rpartition(".")
            self.get_submodule(place).register_buffer(leaf, self._derived[name].to(current.device), persistent=False)
        self._derived = {}

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the weights, which building has initialised."""

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return the second names of parameters, each with the first."""
        return dict(self._shared)

    def _prepare_cache_for_generation(  # type: ignore[override]  # versions differ in the last
        self, generation_config: Any, model_kwargs: dict[str, Any], *sizes: Any
    ) -> None:
        if generation_config.use_cache and model_kwargs.get(CACHE_FIELD) is None:
            # The last of the sizes is the most columns that the caller will need.
            model_kwargs[CACHE_FIELD] = RemoteCache(sizes[-1] if sizes and isinstance(sizes[-1], int) else 0)

    @property
    def own_network(self) -> Any:
        """The network, which some models call `network`."""
        return getattr(self, self._network)

    @property
    def _decoder(self) -> Any:
        """The decoder, which generates."""
        return self.own_network

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self._decoder.token_embedding
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        raise ValueError("the vocabulary of a model of lightning-xt is fixed; train one with another tokenizer")

    def get_output_embeddings(self) -> None:
        return None

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # `generate` allows the inputs of `forward` only if there is a parameter of this name: kwargs.
        if self.visible_prompts and kwargs.get("use_cache") is False:
            raise ValueError("a prefix language model generates with its cache only, which distinguishes prompts")
        found: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)
        return found

    def _decode(
        self, given: RightPadded, inputs: Inputs | None, cache: RemoteCache | None, keep: int | Tensor
    ) -> Float[Tensor, "b _ v"]:
        """Compute the logits of given tokens, of the last ones only if `keep` says so."""
        decoder, last = self._decoder, isinstance(keep, int) and keep == 1
        options: dict[str, Any] = {"lengths": given.lengths, "inputs": inputs}
        if cache is not None:
            options["cache"] = cache.reserve(decoder, *given.tokens.shape)
        logits: Tensor = decoder(given.tokens, **options, last_only=last)
        if cache is not None:
            cache.count(given)
        if last:
            return logits
        logits = given.restore(logits)
        return logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]

    def _open_cache(self, options: dict[str, Any], use_cache: bool | None) -> RemoteCache | None:
        """Return the cache of the caller, or a new one; None if there is none. ValueError for unknown inputs."""
        given = options.pop("cache", None)
        given = options.pop("past_key_values", None) if given is None else given
        for name, value in options.items():
            if name not in WITHOUT_EFFECT and value is not None and value is not False:
                raise ValueError(f"{name} is given, but a model of lightning-xt has no such input; omit it")
        if given is not None and not isinstance(given, RemoteCache):
            raise ValueError(
                f"the cache is a {type(given).__name__}, but a model of lightning-xt makes its own; omit it, and give "
                "that of an earlier output"
            )
        return RemoteCache() if given is None and use_cache else given


def require_ids(name: str, ids: Tensor | None) -> Tensor:
    """Return ids that were given; ValueError if there are none."""
    if ids is None:
        raise ValueError(f"a model of lightning-xt reads ids; give {name}")
    return ids


def compute_loss(
    logits: Float[Tensor, "b n v"], labels: Int[Tensor, "b n"], num_items: int | Tensor | None
) -> Float[Tensor, ""]:
    """Return the cross entropy of labels, over `num_items` instead of their number if a Trainer gives it."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    flat = exact.flatten(0, 1), labels.to(logits.device).flatten()
    if num_items is None:
        return functional.cross_entropy(*flat, ignore_index=IGNORED)
    return functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum") / num_items


def make_output(kind: Any, options: dict[str, Any], cache: RemoteCache | None, **fields: Any) -> Any:
    """Make an output of `transformers`, or a tuple if the caller wants one."""
    made = kind(**fields, **{CACHE_FIELD: cache})
    return made.to_tuple() if options.get("return_dict") is False else made


def _list_derived(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that no file holds, by name."""
    return {
        f"{path}.{name}".lstrip("."): module._buffers[name]
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
        if module._buffers.get(name) is not None
    }
