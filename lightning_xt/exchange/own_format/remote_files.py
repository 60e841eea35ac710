"""Python files of folders for `transformers`: with `trust_remote_code` it runs them, and they import this package."""

from pathlib import Path

CONFIGURATION = '''"""Config of a model of lightning-xt."""

try:
    from lightning_xt.exchange.remote_code.remote_config import RemoteConfig
except ModuleNotFoundError as error:
    if error.name != "lightning_xt":
        raise
    raise ImportError("this model needs lightning-xt; pip install lightning-xt") from error


class LightningXtConfig(RemoteConfig):
    """Config of a model of lightning-xt."""
'''
MODELING = '''"""Models of lightning-xt."""

from .configuration_lightning_xt import LightningXtConfig

try:
    from lightning_xt.exchange.remote_code.remote_causal_lm import RemoteCausalLM
    from lightning_xt.exchange.remote_code.remote_seq2seq_lm import RemoteSeq2SeqLM
except ModuleNotFoundError as error:
    if error.name != "lightning_xt":
        raise
    raise ImportError("this model needs lightning-xt; pip install lightning-xt") from error


class LightningXtForCausalLM(RemoteCausalLM):
    """Language model of lightning-xt."""

    config_class = LightningXtConfig


class LightningXtForSeq2SeqLM(RemoteSeq2SeqLM):
    """Encoder-decoder of lightning-xt."""

    config_class = LightningXtConfig
'''
CONFIG_NAME, MODEL_NAME = "configuration_lightning_xt", "modeling_lightning_xt"


def write_remote_files(folder: Path) -> None:
    """Write both files."""
    (folder / f"{CONFIG_NAME}.py").write_text(CONFIGURATION, encoding="utf-8")
    (folder / f"{MODEL_NAME}.py").write_text(MODELING, encoding="utf-8")


def make_auto_map(pairs: bool) -> dict[str, object]:
    """Return the settings of config.json that name the classes; `pairs` is True for an encoder-decoder."""
    kind = "Seq2SeqLM" if pairs else "CausalLM"
    name = f"LightningXtFor{kind}"
    classes = {"AutoConfig": f"{CONFIG_NAME}.LightningXtConfig", f"AutoModelFor{kind}": f"{MODEL_NAME}.{name}"}
    return {"architectures": [name], "auto_map": classes}
