"""Settings of rotary positions in configs of `transformers`."""

from collections.abc import Mapping
from typing import Any

from lightning_xt.exchange.pretrained.base import UnsupportedSettingError
from lightning_xt.exchange.templates import Choice, Setting, part

ROPE_SETTINGS = {
    "default": {},
    "linear": {"factor": "rope_factor"},
    "llama3": {
        "factor": "rope_factor",
        "low_freq_factor": "rope_low_freq_factor",
        "high_freq_factor": "rope_high_freq_factor",
        "original_max_position_embeddings": "rope_original_length",
    },
    "yarn": {
        "factor": "rope_factor",
        "beta_fast": "rope_beta_fast",
        "beta_slow": "rope_beta_slow",
        "attention_factor": "rope_gain",
        "original_max_position_embeddings": "rope_original_length",
    },
}
"""Settings of each type of scaling in `rope_parameters`, and the names by which templates have them."""
DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": None}
"""Values of settings of a scaling that a config.json may lack."""
WITHOUT_COUNTERPART = {"partial_rotary_factor": 1.0, "truncate": True, "mscale": None, "mscale_all_dim": None}
"""Further settings of a scaling, and the value of each that has a counterpart here."""


def rotary_template() -> dict[str, Any]:
    """Return the template of rotary positions, with the scalings that are the same here."""
    scalings = {
        "default": None,
        "linear": part("LinearScaling", factor=Setting("rope_factor")),
        "llama3": part(
            "Llama3Scaling",
            factor=Setting("rope_factor"),
            low_frequency_factor=Setting("rope_low_freq_factor"),
            high_frequency_factor=Setting("rope_high_freq_factor"),
            original_length=Setting("rope_original_length"),
        ),
        "yarn": part(
            "YarnScaling",
            factor=Setting("rope_factor"),
            beta_fast=Setting("rope_beta_fast"),
            beta_slow=Setting("rope_beta_slow"),
            original_length=Setting("rope_original_length"),
            ramp="pairs",
            gain=Setting("rope_gain"),
        ),
    }
    return part("Rotary", base=Setting("rope_theta"), rope_scaling=Choice("rope_type", scalings))


def write_rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a config.json states them.

    Versions of `transformers` before 5, and other readers, know the older of the two forms.
    """
    kind = settings["rope_type"]
    scaling = {name: settings[ours] for name, ours in ROPE_SETTINGS[kind].items() if settings[ours] is not None}
    others = {name: value for name, value in settings.items() if not name.startswith("rope_")}
    return {
        **others,
        "rope_parameters": {"rope_type": kind, "rope_theta": settings["rope_theta"], **scaling},
        "rope_theta": settings["rope_theta"],
        "rope_scaling": {"rope_type": kind, **scaling} if scaling else None,
    }


def read_rope(config: Mapping[str, Any], base: float) -> dict[str, Any]:
    """Return the settings that a config.json states in one of its forms; `base` is used where it states none.

    Raises:
        UnsupportedSettingError: the frequencies are scaled in another way than those known here.
    """
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = stated.get("rope_type", stated.get("type", "default"))
    if kind not in ROPE_SETTINGS:
        raise UnsupportedSettingError(
            f"rope_type is {kind!r}, but only {', '.join(ROPE_SETTINGS)} have a counterpart here"
        )
    for name, value in WITHOUT_COUNTERPART.items():
        if (found := stated.get(name, config.get(name, value))) not in (value, None):
            raise UnsupportedSettingError(f"{name} is {found}, but only {value} has a counterpart here")
    known = DEFAULTS | {name: value for name, value in stated.items() if value is not None}
    if missing := [name for name in ROPE_SETTINGS[kind] if name not in known]:
        raise UnsupportedSettingError(f"rope_type is {kind!r}, but there is no {', '.join(missing)}")
    own = {ours: known[name] for name, ours in ROPE_SETTINGS[kind].items()}
    return {"rope_type": kind, "rope_theta": stated.get("rope_theta", config.get("rope_theta", base)), **own}
