"""The contract of a pretrained shape: a model of `transformers` that a model here can become, and the way back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_xt.exchange.templates import Match, match_template
from lightning_xt.exchange.tensor_rules import Rule


class UnsupportedSettingError(ValueError):
    """Setting of another library's config that no model here has; the message names it."""


class PretrainedShape(ABC):
    """Architecture of `transformers`: its config and its tensors, and those of the same model here."""

    label: ClassVar[str]
    """Name in messages, such as Llama."""
    model_type: ClassVar[str]
    """The `model_type` of its config.json."""
    overlay: ClassVar[str | None] = None
    """Shipped config of its parts. None = there is none."""
    architecture: ClassVar[str]
    """Class of the library that has the head."""
    kind: ClassVar[Literal["LanguageModel", "Seq2Seq"]] = "LanguageModel"
    """Class of the model here."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of settings that a config.json may lack."""
    constants: ClassVar[Mapping[str, Any]] = {}
    """Settings that have one value in every model that fits."""
    depth_settings: ClassVar[tuple[str, ...]] = ("num_hidden_layers",)
    """Settings of the number of layers."""
    length_setting: ClassVar[str] = "max_position_embeddings"
    """Setting of the longest sequence."""

    @property
    @abstractmethod
    def template(self) -> dict[str, Any]:
        """Template of the model's options: `decoder`, and for an encoder-decoder `encoder` and `shared_embedding`."""

    @abstractmethod
    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        """List the rules of all tensors; our names are those of the module's network.

        Args:
            settings: settings of the model, and `vocab_size`.
        """

    def match(self, config: Mapping[str, Any]) -> Match:
        """Match the options of a model against the template."""
        return match_template(self.template, config, "model")

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config.json of settings, without what all models have, such as special ids."""
        return {**self.constants, **settings}

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a config.json.

        Raises:
            UnsupportedSettingError: a setting has a value, or lacks one, for which there is no model here.
        """
        known = {**self.defaults, **config}
        for name, value in self.constants.items():
            if (found := known.get(name, value)) != value:
                raise UnsupportedSettingError(f"{name} is {found!r}, but only {value!r} has a counterpart here")
        return known

    def complete_settings(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Add the settings of a folder that only its tensors state."""
        return dict(settings)

    def choose_length(self, longest: int) -> int:
        """Choose the length setting of a model whose sequences have at most this number of tokens."""
        return longest
