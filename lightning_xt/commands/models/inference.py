"""Setup of inference: weight formats, compilation, drafts, amateurs, guidance."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.commands.models.evaluation_cost import EvaluationCost
from lightning_xt.commands.models.generation_cost import GenerationCost
from lightning_xt.commands.models.loading import load
from lightning_xt.core.inputs import Inputs
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.draft import Draft
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.models.guided import Guided
from lightning_xt.generation.models.quantized_weights import Weights, check_weights, convert_weights
from lightning_xt.generation.models.weight_groups import GroupSize
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import DecodingSetup
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.adapters.layer_replacement import merge_adapters
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule


class Inference(Callback):
    """Callback that sets a model up for inference: the format of its weights, and models that help it.

    Args:
        weights: form of the weights: float32 as they were trained, in the order in which a CPU reads them fastest;
            bfloat16 in half the bytes; int8 in a quarter; int4 in a sixth. The loss of both is reported. None = as they
            are.
        group_size: numbers of a matrix row that share a scale in int8 and int4; row = all. None = row in int8, 32 in
            int4.
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
        group_size: GroupSize | None = None,
        compile: bool = False,
        draft: str | None = None,
        amateur: Sequence[str] = (),
        guidance: float | None = None,
    ) -> None:
        check_weights(weights, group_size)
        self.weights, self.group_size, self.compile = weights, group_size, compile
        self.draft, self.amateur, self.guidance = draft, list(amateur), guidance
        given: dict[str, Any] = {"weights": weights, "group_size": group_size}
        given |= {"draft": draft, "amateur": self.amateur, "guidance": guidance}
        self.settings = {name: value for name, value in given.items() if value not in (None, [])}
        """Settings that results report."""
        self.cost: GenerationCost | None = None
        """Cost of the weights in completions."""
        self.evaluation_cost: EvaluationCost | None = None
        """Cost of the weights in an evaluation."""
        self._fits = False
        self._earlier = DecodingSetup()

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
            self._earlier = pl_module.decoding
            self.check(pl_module.sampling)
            self.apply(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fits or not isinstance(pl_module, TransformerModule):
            return
        self._earlier = pl_module.decoding
        if self._rounds:
            self.evaluation_cost = EvaluationCost(self._label, pl_module)
        if pl_module.decodes_evaluations:
            self.check(pl_module.sampling)
            self.apply(pl_module, measured=False)
        elif self.weights is not None:
            pl_module.decoding = DecodingSetup(network=self._convert(pl_module))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluation_cost is not None:
            self.evaluation_cost.begin("test" if trainer.testing else "val")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.evaluation_cost is not None:
            self.evaluation_cost.add(batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluation_cost is not None:
            self.evaluation_cost.finish()

    on_test_start, on_test_epoch_start = on_validation_start, on_validation_epoch_start
    on_test_batch_end, on_test_epoch_end = on_validation_batch_end, on_validation_epoch_end

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.report()
        self._restore(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluation_cost is not None and trainer.is_global_zero:
            print(self.evaluation_cost.describe(trainer.callback_metrics), file=sys.stderr)
        self._restore(pl_module)

    on_test_end = on_validation_end

    def _restore(self, module: LightningModule) -> None:
        """Let a module evaluate and generate as before."""
        if isinstance(module, TransformerModule) and not self._fits:
            module.decoding, self.evaluation_cost = self._earlier, None

    def apply(self, module: TransformerModule, *, measured: bool = True) -> None:
        """Set a module up for generation; `measured` if the cost of the weights is measured by completions.

        Raises:
            UserError: the module does not support it, or a run does not fit the module.
        """
        decoder = _find_decoder(module)
        if self.compile and decoder.segments is not None:
            raise UserError(
                "--compile compiles decode steps, but those of a model with segments "
                f"({type(decoder.segments).__name__}) cannot be compiled; omit it"
            )
        network = self._prepare(module)
        module.decoding = DecodingSetup(network=network)
        model: Any = _find_decoder(module)
        if measured and self.weights is not None:
            self.cost = GenerationCost(self._label, module.network, module.evaluated_network)
        if self.compile:
            model = Compiled(model)
        if self.amateur:
            model = Contrastive(model, [_load_helper(run, module, "--amateur") for run in self.amateur])
        if self.guidance is not None:
            model = Guided(model, _encode_empty_source(module, self.guidance), self.guidance)
        draft = None if self.draft is None else Draft(_load_helper(self.draft, module, "--draft"))
        heard = self.cost.add if self.cost is not None and self._rounds else None
        module.decoding = DecodingSetup(model, draft, heard, self.settings, network)

    def _prepare(self, module: TransformerModule) -> Any:
        """Return the network of a module as it generates: in other weights, or with merged adapters."""
        # Packed matrices make compiled steps fast on a CPU.
        if self.weights is not None or self.compile:
            return self._convert(module)
        # No process has whole matrices of a sharded network: its adapters stay.
        return module.network if module.device_mesh is not None else merge_adapters(module.network)

    @property
    def _rounds(self) -> bool:
        """True if the weights are less exact than those trained."""
        return self.weights not in (None, "float32")

    @property
    def _label(self) -> str:
        """Format of the weights, with its groups if they were chosen."""
        return f"{self.weights}" if self.group_size is None else f"{self.weights} (group_size {self.group_size})"

    def _convert(self, module: TransformerModule) -> Any:
        """Copy the network of a module to the format of the weights; UserError if it is sharded."""
        if module.device_mesh is not None:
            option = "compile true" if self.weights is None else f"weights {self.weights}"
            raise UserError(
                f"--inference.{option} needs whole matrices, but a sharding strategy leaves each process "
                "parts of them; omit it, or set --trainer.strategy auto"
            )
        return convert_weights(module.network, self.weights or "float32", self.group_size)

    def report(self) -> None:
        """Print the cost of other weights on standard error."""
        if self.cost is not None and self.cost.tokens:
            print(self.cost, file=sys.stderr)


def _find_decoder(module: TransformerModule) -> Decoder:
    if module.no_generation is not None:
        raise UserError(module.no_generation)
    network = module.evaluated_network
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
    ours, theirs = _require_language_model(module, option), load(run, module.device)
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
    network = module.evaluated_network
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
