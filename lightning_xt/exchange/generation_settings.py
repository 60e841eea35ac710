"""Settings that the `config.json` and `generation_config.json` of all exported folders share."""

from typing import Any

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.tokenizers.tokenizer_files import list_specials

LONGEST = 2**31
"""More tokens than any sequence has."""


def list_ids(model: ExportedModel) -> dict[str, int | None]:
    """Return the special ids by their names in config.json; null for one that there is not."""
    found = list_specials(model.target_tokenizer)
    ids = {f"{name}_token_id": found.get(name) for name in ("bos", "eos", "pad")}
    return ids | {"decoder_start_token_id": ids["bos_token_id"]} if model.kind == "Seq2Seq" else ids


def make_generation_config(model: ExportedModel, ids: dict[str, int | None]) -> dict[str, Any]:
    """Return the settings of generation: greedy, without tokens that no text has."""
    # T5 and Marian start with a token that they never generate, and would suppress their end.
    never = [each for each in model.unused if each != model.target_tokenizer.end]
    given: dict[str, Any] = {name: value for name, value in ids.items() if value is not None}
    if model.kind == "Seq2Seq":
        # 20 otherwise. Here, a translation has at most twice the tokens of its source and 32, after the start token.
        given["max_length"] = min(2 * model.max_length + 33, getattr(model.network, "max_length", None) or LONGEST)
    return {**given, "do_sample": False, **({"suppress_tokens": never} if never else {})}
