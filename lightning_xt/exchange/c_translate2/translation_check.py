"""Comparison of a model with its folder in CTranslate2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.exchange.comparison import TOLERANCE
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.tokenizers.tokenizer_files import list_token_names
from lightning_xt.exchange.verification import Verification
from lightning_xt.nn.embeddings.sinusoidal_positions import SinusoidalPositions
from lightning_xt.nn.norms.rms_norm import RMSNorm

TOKENS = 24
"""Most greedy tokens that are compared."""


@torch.no_grad()
def compare_translations(model: ExportedModel, folder: Path, unused: Sequence[int]) -> Verification:
    """Compare the log-probabilities of a target, and the greedy tokens of a source.

    Raises:
        ValueError: the log-probabilities differ by more than the tolerance, or a token differs.
    """
    import ctranslate2

    reader = f"CTranslate2 {ctranslate2.__version__}"
    translator = ctranslate2.Translator(str(folder), compute_type="float32", inter_threads=1, intra_threads=1)
    names = list_token_names(model.target_tokenizer, model.vocab_size)
    source_names = list_token_names(model.tokenizers["source"], model.source_size)
    src, drawn = model.probe
    source = [source_names[token] for token in src[0].tolist()]
    never = {*unused, model.target_tokenizer.end}
    target = [token for token in drawn[0].tolist() if token not in never]
    theirs = translator.score_batch([source], [[names[token] for token in target]])[0].log_probs
    rounded = _round_weights(model)
    ours = _score_target(model, rounded, src, target, unused)
    tolerance = TOLERANCE
    if rounded is not model.network and any(isinstance(each, SinusoidalPositions) for each in rounded.modules()):
        # Sines are computed here, but a table there, which is rounded, too: about as much as the weights.
        tolerance += float((ours - _score_target(model, model.network, src, target, unused)).abs().max())
    difference = float((torch.tensor(theirs) - ours).abs().max())
    if not difference <= tolerance:
        raise ValueError(
            f"the export of {model.name} is wrong: the log-probabilities of {reader} differ by {difference:.3g}, more "
            f"than {tolerance:g}; nothing was written"
        )
    most = min(TOKENS, model.max_length - 1)
    options: dict[str, Any] = {"beam_size": 1, "max_decoding_length": most, "min_decoding_length": 0}
    found = translator.translate_batch([source], **options)[0].hypotheses[0]
    same = _count_same(model, rounded, src, [names.index(each) for each in found], most, unused, 2 * tolerance)
    if same is None:
        raise ValueError(
            f"the export of {model.name} is wrong: {reader} generates other greedy tokens; nothing was written"
        )
    return Verification(reader, difference, tolerance, same, "log-probabilities")


def _round_weights(model: ExportedModel) -> nn.Module:
    """Return the network with rounded weights; gains that are differences from 1 here are whole there."""
    rounded = model.round_weights()
    if rounded is not model.network:
        for own, norm in zip(model.network.modules(), rounded.modules(), strict=True):
            if isinstance(own, RMSNorm) and isinstance(norm, RMSNorm) and own.zero_centered:
                norm.gain.copy_((1 + own.gain).to(model.options.dtype).float() - 1)
    return rounded


def _compute_logits(
    network: nn.Module, src: Int[Tensor, "1 m"], text: Sequence[int], unused: Sequence[int]
) -> Float[Tensor, "n v"]:
    """Compute the logits after each token, without those of unused tokens."""
    logits: Tensor = network(src, torch.tensor([text]))[0].float()
    return logits.index_fill(1, torch.tensor(list(unused), dtype=torch.long), -torch.inf)


def _score_target(
    model: ExportedModel, network: nn.Module, src: Int[Tensor, "1 m"], target: Sequence[int], unused: Sequence[int]
) -> Float[Tensor, " n"]:
    """Return the log-probability of each token of a target, end token included."""
    # The format refuses a tokenizer without them.
    start, end = cast(int, model.target_tokenizer.start), cast(int, model.target_tokenizer.end)
    logits = _compute_logits(network, src, [start, *target], unused)
    return logits.log_softmax(-1).gather(1, torch.tensor([*target, end])[:, None])[:, 0]


def _count_same(
    model: ExportedModel,
    network: nn.Module,
    src: Int[Tensor, "1 m"],
    theirs: Sequence[int],
    most: int,
    unused: Sequence[int],
    tolerance: float,
) -> int | None:
    """Count equal greedy tokens until the end, or until two are nearly as likely; None if one differs otherwise."""
    # The format refuses a tokenizer without them.
    start, end = cast(int, model.target_tokenizer.start), cast(int, model.target_tokenizer.end)
    text = [start]
    for number in range(most):
        logits = _compute_logits(network, src, text, unused)[-1]
        best = int(logits.argmax())
        other = theirs[number] if number < len(theirs) else end
        if other != best:
            return number if float(logits[best] - logits[other]) <= tolerance else None
        if best == end:
            return number + 1
        text.append(best)
    return most if len(theirs) == most else None
