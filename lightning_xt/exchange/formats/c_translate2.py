from pathlib import Path
from typing import Any, ClassVar

from lightning_xt.exchange.c_translate2.pair_template import make_template
from lightning_xt.exchange.c_translate2.spec_building import build_spec
from lightning_xt.exchange.c_translate2.translation_check import compare_translations
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.templates import Match, Mismatch, match_template
from lightning_xt.exchange.tokenizers.exported_tokenizers import write_tokenizers
from lightning_xt.exchange.tokenizers.tokenizer_files import list_token_names
from lightning_xt.exchange.verification import Verification

LEAST_POSITIONS = 1024
"""Least length of the tables of positions that are computed."""


class CTranslate2(ExportFormat):
    """Folder of CTranslate2, which translates fast on CPUs and GPUs without Python or torch.

    Klein et al., 2020. https://github.com/OpenNMT/CTranslate2
    """

    name: ClassVar = "ctranslate2"
    summary: ClassVar = "CTranslate2; encoder-decoders of usual parts, without those that few have"

    def check(self, model: ExportedModel) -> None:
        self._fit(model)
        if model.target_tokenizer.end is None or model.target_tokenizer.start is None:
            raise MisfitError(
                f"{model.name} has a tokenizer without a start or an end token, which CTranslate2 needs; train with "
                "--data.tokenizer BPE, or use --format hf-code"
            )
        try:
            import ctranslate2  # noqa: F401
        except ImportError as error:
            raise MisfitError("ctranslate2 is not installed; pip install 'lightning-xt[ctranslate2]'") from error

    def write(self, model: ExportedModel, folder: Path) -> None:
        settings = self._fit(model)
        source, target = model.tokenizers["source"], model.target_tokenizer
        spec = build_spec(model.network, settings, max(2 * model.max_length + 33, LEAST_POSITIONS), model.unused)  # type: ignore[arg-type]
        names = list_token_names(target, model.vocab_size)
        spec.register_source_vocabulary(list_token_names(source, model.source_size))
        spec.register_target_vocabulary(names)
        start, end = names[target.start], names[target.end]  # type: ignore[index]
        spec.config.bos_token, spec.config.decoder_start_token, spec.config.eos_token = start, start, end
        # The name of a token that sources do not need, since one that is missing would be added.
        spec.config.unk_token = names[0 if target.pad is None else target.pad]
        spec.validate()
        spec.optimize(quantization=str(model.options.dtype).removeprefix("torch."))
        spec.save(str(folder))
        write_tokenizers(model, folder)

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        return compare_translations(model, folder, model.unused)

    def _fit(self, model: ExportedModel) -> dict[str, Any]:
        """Return the settings of a model; MisfitError for one that does not fit."""
        if model.kind != "Seq2Seq":
            raise MisfitError(
                f"{model.name} is a {model.kind}, but this format is for encoder-decoders; use --format hf"
            )
        found = match_template(make_template(), model.config, "model")
        _check_positions(found)
        _check_norms(found)
        if found.mismatches:
            raise MisfitError(
                f"{model.name} has parts that CTranslate2 does not compute: {found.describe()}; train a model without "
                "them, such as configs/translation/marian_small.yaml, or use --format hf-code"
            )
        return found.settings


def _check_positions(found: Match) -> None:
    """Report positions in the embeddings and in the attention of one side, of which CTranslate2 has one."""
    for side in ("encoder", "decoder"):
        position = found.settings.get(f"{side}_position", "none")
        kinds = found.settings.get(f"{side}_embeddings", "").split()
        if position != "none" and {"sines", "learned"} & set(kinds):
            path = f"model.{side}.attention.position"
            found.mismatches.append(Mismatch(path, "given", "null, because embeddings has positions too"))


def _check_norms(found: Match) -> None:
    """Report a norm of embeddings of another kind than the other norms of its side, which are of one kind there."""
    for side in ("encoder", "decoder"):
        own, embedded = (str(found.settings.get(f"{side}{name}_norm", "")) for name in ("", "_embedding"))
        if own and embedded and own.startswith("layer") != embedded.startswith("layer"):
            path = f"model.{side}.embeddings"
            found.mismatches.append(Mismatch(path, embedded, f"an EmbeddingNorm like the other norms, {own}"))
