"""Setup of inference: weight formats, compilation, drafts, amateurs, guidance."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.commands.models.loading import load
from lightning_xt.core.inputs import Inputs
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.draft import Draft
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.models.guided import Guided
from lightning_xt.generation.models.quantized_weights import Weights, convert_weights, measure_loss
from lightning_xt.generation.requests import Request
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import DecodingSetup
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.adapters.layer_replacement import merge_adapters
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule

MEASURED = 16
"""Completions by which the cost of other weights is measured."""


class Inference(Callback):
    """Callback that sets a model up for inference: the format of its weights, and models that help it.

    Args:
        weights: form of the weights: float32 as they were trained, in the order in which a CPU reads them fastest;
            bfloat16 in half the bytes; int8 in a quarter. The loss of both is reported. None = as they are.
        compile: whether to compile decode steps, which takes up to minutes and pays for long completions.
        draft: a run whose smaller model drafts several tokens, which the model verifies at once; the completion stays
            the same. None = none.
        amateur: runs of weaker models; tokens that they like too count less (contrastive decoding).
        guidance: weight of what the source adds to scores, of an encoder-decoder (classifier-free guidance); each step
            runs twice. None = 1.
    """

    def __init__(
        self,
        weights: Weights | None = None,
        compile: bool = False,
        draft: str | None = None,
        amateur: Sequence[str] = (),
        guidance: float | None = None,
    ) -> None:
        self.weights, self.compile = weights, compile
        self.draft, self.amateur, self.guidance = draft, list(amateur), guidance
        given = {"weights": weights, "draft": draft, "amateur": self.amateur, "guidance": guidance}
        self.settings = {name: value for name, value in given.items() if value not in (None, [])}
        """Settings that results report."""
        self.cost: Cost | None = None
        self._fits = False

    def check(self, sampling: GenerationOptions) -> None:
        """Raise a UserError if the generation method does not work with this setup."""
        method = sampling.build_method()
        given = [name for name in ("compile", "amateur", "guidance") if getattr(self, name) not in (None, False, [])]
        if method.needs_hidden_states and given:
            raise UserError(
                f"--{given[0]} takes the network's place, but the method, {type(method).__name__}, compares vectors "
                "that only the network gives; omit it, or choose another method"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A fit validates the network as it is, its best weights at the end too.
        self._fits = self._fits or stage == "fit"

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        given = self.settings or self.compile
        if isinstance(pl_module, TransformerModule) and not self._fits and (given or pl_module.no_generation is None):
            self.check(pl_module.sampling)
            self.apply(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(pl_module, "decodes_evaluations", False):
            self.on_predict_start(trainer, pl_module)

    on_test_start = on_validation_start

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.report()

    on_validation_end = on_test_end = on_predict_end

    def apply(self, module: TransformerModule) -> None:
        """Set a module up; UserError if the module does not support it, or a run does not fit the module."""
        decoder = merge_adapters(_find_decoder(module))
        model: Any = decoder
        if self.compile and decoder.segments is not None:
            raise UserError(
                "--compile compiles decode steps, but those of a model with segments "
                f"({type(decoder.segments).__name__}) cannot be compiled; omit it"
            )
        if self.weights is not None or self.compile:
            # Packed matrices make compiled steps fast on a CPU.
            model = decoder = convert_weights(decoder, self.weights or "float32")
        if self.weights is not None:
            self.cost = Cost(self.weights, _find_decoder(module), decoder)
        if self.compile:
            model = Compiled(decoder)
        if self.amateur:
            model = Contrastive(model, [_load_helper(run, module, "--amateur") for run in self.amateur])
        if self.guidance is not None:
            model = Guided(model, _encode_empty_source(module, self.guidance), self.guidance)
        draft = None if self.draft is None else Draft(_load_helper(self.draft, module, "--draft"))
        heard = None if self.weights in (None, "float32") or self.cost is None else self.cost.add
        module.decoding = DecodingSetup(model, draft, heard, self.settings)

    def report(self) -> None:
        """Print the cost of other weights on standard error."""
        if self.cost is not None and self.cost.tokens:
            print(self.cost, file=sys.stderr)


class Cost:
    """Cost of other weights: the mean loss of prompts and completions, next to that of the weights as trained."""

    def __init__(self, weights: str, trained: Decoder, lowered: Decoder) -> None:
        self.weights, self.trained, self.lowered = weights, trained, lowered
        self.tokens, self.texts = 0, 0
        self._sums = [0.0, 0.0]

    def add(self, request: Request, ids: Sequence[int]) -> None:
        """Add a completion; only the first few count."""
        if self.texts == MEASURED:
            return
        drawn = torch.tensor([*ids], dtype=torch.long, device=request.prompt.device)
        tokens = torch.cat((request.prompt, drawn))[None]
        with eval_mode(self.trained):
            for number, network in enumerate((self.lowered, self.trained)):
                self._sums[number] += (tokens.shape[1] - 1) * measure_loss(network, tokens, request.inputs)
        self.tokens += tokens.shape[1] - 1
        self.texts += 1

    def __str__(self) -> str:
        lowered, trained = (each / self.tokens for each in self._sums)
        return f"weights {self.weights}: loss {lowered:.4f} nats a token, {trained:.4f} with float32"


def _find_decoder(module: TransformerModule) -> Decoder:
    if module.no_generation is not None:
        raise UserError(module.no_generation)
    network = module.network
    found = network.decoder if isinstance(network, EncoderDecoder) else network
    if not isinstance(found, Decoder):
        raise UserError(f"a {type(module).__name__} has no decoder, which generates; give the run of another model")
    return found


def _require_language_model(module: TransformerModule, option: str) -> LanguageModel:
    if not isinstance(module, LanguageModel):
        raise UserError(f"{option} is for language models, but this is a {type(module).__name__}; omit it")
    return module


def _load_helper(run: str, module: TransformerModule, option: str) -> Decoder:
    """Load the decoder of another run, which must have the same vocabulary."""
    ours, theirs = _require_language_model(module, option), load(run).to(module.device)
    if not isinstance(theirs, LanguageModel):
        raise UserError(f"{option} {run} is a {type(theirs).__name__}; give the run of a language model")
    difference = describe_difference(theirs.tokenizer, ours.tokenizer)
    if theirs.decoder.vocab_size != ours.decoder.vocab_size:
        difference = f"{theirs.decoder.vocab_size} tokens instead of {ours.decoder.vocab_size}"
    if difference:
        raise UserError(
            f"{option} {run} has another vocabulary than the model: {difference}; give a run that was trained with the "
            "same tokenizer"
        )
    return theirs.decoder


def _encode_empty_source(module: TransformerModule, scale: float) -> Inputs:
    """Encode an empty source."""
    network = module.network
    if not isinstance(network, EncoderDecoder):
        raise UserError(
            f"--guidance {scale} weighs what a source adds, but a {type(module).__name__} has none; it is for "
            "encoder-decoders"
        )
    end = module.tokenizers["source"].end
    if end is None:
        raise UserError(f"--guidance {scale} needs an empty source, but the sources have no end token; omit it")
    with eval_mode(network), torch.no_grad():
        return network.encode(torch.tensor([[end]], device=module.device))
