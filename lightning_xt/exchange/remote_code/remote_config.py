from typing import Any

from transformers import PreTrainedConfig


class RemoteConfig(PreTrainedConfig):
    """Config of a model of this package for `transformers`; `lightning_xt` describes the model completely."""

    model_type = "lightning_xt"
    lightning_xt: dict[str, Any] | None = None
