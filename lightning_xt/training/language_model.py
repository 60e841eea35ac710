"""Training of a decoder as a language model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.data.base import DataModule
from lightning_xt.data.prompt_files import Prompt, number_prompts
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import list_texts
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.adapters.base import AdapterFactory
from lightning_xt.nn.segments.base import Segments
from lightning_xt.objectives.base import ObjectiveFactory
from lightning_xt.objectives.next_token import NextToken
from lightning_xt.system.option_checks import check_slots, refuse_unknown
from lightning_xt.training.corpus_module import CorpusModule
from lightning_xt.training.metrics.answer_scores import AnswerScores
from lightning_xt.training.metrics.likelihood import LikelihoodSums, compute_likelihood_metrics
from lightning_xt.training.module import TransformerModule, require_size
from lightning_xt.training.network_adaptation import adapt_network
from lightning_xt.training.optim.maximal_update import choose_update
from lightning_xt.training.optim.parameter_groups import OptimizerFactory
from lightning_xt.training.optim.schedules.base import ScheduleFactory
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine

PROMPTS = ("import ", "def ", "The ")
"""Prompts of a validation by default."""


class LanguageModel(CorpusModule):
    """Decoder that learns to predict the next token.

    `model(tokens)` is the loss. Batches are `LongTensor (b, seq_len + 1)`, for validation and test also
    `EvaluationBatch`; loaders of other data may put the tensor into a list. A `PackedBatch` has several examples a row,
    which do not see each other; a step's loss is then the mean over its scored tokens of all processes. If the scored
    tokens of a row are its answer, as in probes, evaluations also report token_accuracy and exact_match.

    Args:
        vocab: sizes and special ids; from the command line the data's. A separator keeps documents apart: attention
            does not cross it, and positions start again.
        decoder: the network.
        objective: training loss.
        optimizer: MuonAdamW, or a class of torch.optim that takes groups of parameters of any shape, which Muon and
            LBFGS do not. Embeddings, norms and biases do not decay.
        schedule: learning rate over the run, in optimizer steps. None = constant.
        compile: whether training uses torch.compile; or its keywords, such as {mode: max-autotune}.
        adapter: added to the network and trained in its place, such as LoRA; the network is frozen. None = no adapter.
        frozen: patterns of names of the network's parameters that do not train, such as `*embedding*`.
        mup_base_dim: width at which the learning rate was chosen, for another `decoder.dim` (muP); the learning rates
            of matrices and the scores of attention are scaled from it, see `MaximalUpdate`. None = no scaling.

    Examples:
        >>> import torch
        >>> from lightning_xt import LanguageModel
        >>> model = LanguageModel.from_config({"decoder": {"dim": 64, "depth": 2, "attention": {"position": "ALiBi"}}})
        >>> tokens = torch.zeros(2, 17, dtype=torch.long)
        >>> model(tokens).backward()
        >>> model.generate(tokens[:, :5], max_new_tokens=8).shape
        torch.Size([2, 8])
    """

    shown_metrics: ClassVar = ("bits_per_byte",)
    logged: ClassVar = (*TransformerModule.logged, "val/loss", "val/bits_per_byte", "val/perplexity")

    @check_slots
    def __init__(
        self,
        vocab: dict[str, int | None],
        decoder: Callable[[int], Decoder] = Decoder,
        objective: ObjectiveFactory = NextToken,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory | None = WarmupCosine,
        compile: bool | dict[str, Any] = False,
        adapter: AdapterFactory | None = None,
        frozen: Sequence[str] = (),
        mup_base_dim: int | None = None,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, compile=compile)
        self.save_hyperparameters(logger=False)
        self.remember_config()
        self.vocab_size = require_size(vocab, "target")
        self.decoder = decoder(self.vocab_size)
        self.maximal_update = choose_update(self.decoder, partial(decoder, self.vocab_size), mup_base_dim, adapter)
        adapt_network(self.decoder, adapter, frozen)
        self.separator = vocab.get("separator")
        self.objective = objective(ObjectiveShape.from_model(self.decoder, vocab))

    @property
    def network(self) -> nn.Module:  # type: ignore[override]  # another module assigns it
        return self.decoder

    @property
    def segments(self) -> tuple[Segments, int] | None:
        found, calls = self.decoder.segments, self.decoder.stack.attention_calls
        return None if found is None else (found, len(calls))

    def begin_evaluation(self, split: str) -> None:
        super().begin_evaluation(split)
        self._sums = LikelihoodSums(self.device)
        self._bytes_per_token = self.measure_tokens(split)
        self._answers = AnswerScores(self.device) if getattr(self.data_module, "has_answers", False) else None

    def evaluate(self, batch: Any) -> None:
        tokens, scored, inputs = self.read_evaluation(batch)
        loss = self.score(self._evaluation_forward, tokens, scored, self._evaluated_memories.add(batch, inputs))
        self.keep_memories(self._evaluated_memories, batch, loss)
        self._sums.add(loss)
        if self._answers is not None:
            self._answers.add(self.require_logits(loss), tokens, scored)

    def compute_metrics(self) -> dict[str, Tensor]:
        sums = self.trainer.strategy.reduce(self._sums.sums, reduce_op="sum")
        found = compute_likelihood_metrics(sums, self._bytes_per_token)
        return found if self._answers is None else found | self._answers.compute(self.trainer)

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[dict[str, Any]]:
        completer, sampling = self.text_generator, self.sampling
        if isinstance(data := self.data_module, DataModule) and data.stop:
            sampling = replace(sampling, stop=[*sampling.stop, *data.stop])
        if note := completer.find_excess([prompt["prompt"] for prompt in batch], sampling):
            self._excess = note
        return completer.complete_as_dicts(batch, sampling)

    @torch.no_grad()
    @refuse_unknown(GenerationOptions)
    def generate(
        self,
        prompt: Int[Tensor, "b n"] | str | Sequence[str],
        max_new_tokens: int | None = None,
        lengths: Int[Tensor, " b"] | None = None,
        **options: Any,
    ) -> Any:
        """Continue prompts: ids give ids, a text gives a text, texts give a list of texts; without the prompts.

        Args:
            prompt: ids, whose row r samples with seed + r; or one or several texts, each with its own random numbers.
            max_new_tokens: most tokens to generate. None = 256.
            lengths: tokens of each row of ids without padding on the right. None = all.
            options: fields of `GenerationOptions`, such as temperature, top_k and seed.

        Raises:
            ValueError: an option is out of range, a prompt is empty, or a token is outside the vocabulary.
        """
        chosen = GenerationOptions(max_new_tokens=max_new_tokens, **options).require_single("generate returns")
        if isinstance(prompt, Tensor):
            return self.text_generator.decode(prompt, lengths, chosen)
        prompts = number_prompts(list_texts(prompt))
        found = [each["text"] for each in self.text_generator.complete_as_dicts(prompts, chosen)]
        return found[0] if isinstance(prompt, str) else found

    def limit_length(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> GenerationOptions:
        limit, prompts = self.decoder.max_length, self._choose_prompts(prompts)
        sampling = sampling.resolve(max_new_tokens=128, temperature=0.8)
        # Refuses a window or a method that the network does not support.
        self.text_generator.open_session(sampling)
        if limit is None or not prompts or sampling.max_new_tokens is None:
            return sampling
        longest = max(len(self.tokenizer.encode_prompt(prompt)) for prompt in prompts)
        if longest >= limit:
            raise ValueError(
                f"sample_text.prompts: a prompt of {longest} tokens leaves no room for "
                f"sample_text.generation.max_new_tokens, because the model's positions reach only {limit} (max_length)"
                "; shorten it, or sample nothing: --sample_text.prompts []"
            )
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, limit - longest))

    def draw_samples(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> list[str]:
        results = self.text_generator.complete_as_dicts(number_prompts(self._choose_prompts(prompts)), sampling)
        return [result["prompt"] + result["text"] for result in results]

    def _choose_prompts(self, prompts: Sequence[str] | None) -> Sequence[str]:
        """Return the prompts, by default those of text if the tokenizer reads text."""
        if prompts is not None:
            return prompts
        try:
            return [prompt for prompt in PROMPTS if self.tokenizer.encode_prompt(prompt)]
        except ValueError:
            return ()

    @property
    def text_generator(self) -> TextCompleter:
        """Generator that continues texts."""
        decoder: Decoder = self.evaluated_network
        device = decoder.token_embedding.weight.device
        # Segments are made for texts longer than a row.
        limit = self.trained_length if decoder.segments is None else None
        visible = self.objective.visible_prompts
        return TextCompleter(decoder, self.tokenizer, device, self.decoding, limit, visible_prompts=visible)
