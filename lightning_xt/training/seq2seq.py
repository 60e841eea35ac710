"""Training of an encoder-decoder on pairs of a source and its target."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import AdamW, Optimizer

from lightning_xt.core.batch import EvaluationPairs, PairBatch
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.pairs.source_files import Source
from lightning_xt.data.probes.base import Probe
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.translation import Translator
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import CrossDecoderFactory, EncoderDecoder, EncoderFactory
from lightning_xt.nn.adapters.base import AdapterFactory
from lightning_xt.objectives.base import Loss, ObjectiveFactory
from lightning_xt.objectives.cross_entropy import cross_entropy
from lightning_xt.objectives.next_token import NextToken
from lightning_xt.system.option_checks import check_slots, refuse_unknown
from lightning_xt.training.batches import read_evaluation_pairs, read_inputs, read_pairs
from lightning_xt.training.compilation import refuse_evaluation
from lightning_xt.training.figures.example import Example, choose_pair
from lightning_xt.training.metrics.pair_scores import PairScores, ShownPair, check_decode_pairs
from lightning_xt.training.module import TransformerModule, require_size
from lightning_xt.training.network_adaptation import adapt_network
from lightning_xt.training.optim.parameter_groups import OptimizerFactory
from lightning_xt.training.optim.schedules.base import ScheduleFactory
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine
from lightning_xt.training.pair_decoding import decode_pairs, describe_pairs, describe_results, read_texts
from lightning_xt.training.pair_tokenizers import prepare_fit
from lightning_xt.training.step_mean import StepMean
from lightning_xt.training.trained_tokenizers import check_same

EXAMPLES, ROWS = 4, 8
"""Validation pairs among the samples by default, and in a table."""


class Seq2Seq(TransformerModule):
    """Encoder-decoder that learns to answer a source with its target.

    `model(src, tgt, mask=src_mask)` is the loss. Batches are `(src, tgt)` or `(src, tgt, src_mask)`, with `src_mask`
    True where a source id is real and `tgt` beginning with the start token, for validation and test also
    `EvaluationPairs`. A step's loss is the mean over the target tokens of all processes; padding does not count.

    Args:
        vocab: sizes and special ids; from the command line the data's.
        encoder: reads the source.
        decoder: writes the target.
        shared_embedding: whether source and target tokens share one table of vectors.
        context_dropout: fraction of the source's positions hidden from cross-attention in training.
        objective: training loss.
        optimizer: MuonAdamW, or a class of torch.optim that takes groups of parameters of any shape, which Muon and
            LBFGS do not. Embeddings, norms and biases do not decay.
        schedule: learning rate over the run, in optimizer steps. None = constant.
        val_decode_pairs: pairs of the validation split, from its first, that are also decoded and compared. None = all.
        compile: whether training uses torch.compile; or its keywords, such as {mode: max-autotune}.
        adapter: added to the network and trained in its place, such as LoRA; the network is frozen. None = no adapter.
        frozen: patterns of names of the network's parameters that do not train, such as `*embedding*`.

    Examples:
        >>> import torch
        >>> from lightning_xt import Seq2Seq
        >>> model = Seq2Seq.from_config({"encoder": {"dim": 64, "depth": 2}, "decoder": {"dim": 64, "depth": 2}})
        >>> model(torch.full((2, 9), 70), torch.full((2, 7), 71)).backward()
    """

    network: EncoderDecoder
    default_vocab: ClassVar = {"source": 259, "target": 259, "pad": 0, "start": 1, "end": 2, "separator": None}
    plain_lines: ClassVar = True
    given_inputs: ClassVar = ("context",)
    decodes_evaluations = True
    shown_metrics: ClassVar = ("loss", "exact_match", "bleu")
    logged: ClassVar = (
        *TransformerModule.logged,
        *("val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match", "val/bleu", "val/chrf"),
    )
    foreign_data: ClassVar = {
        TextCorpus: "text without targets; set --model LanguageModel, or --data ParallelText or other pairs",
        Probe: "questions and answers in one row; set --model LanguageModel, or --data CopyTask",
        Conversations: "prompts and responses in one text; set --model LanguageModel, or --data ParallelText with "
        "--data.fields '[prompt, response]'",
    }

    @check_slots
    def __init__(
        self,
        vocab: dict[str, int | None],
        encoder: EncoderFactory = Encoder,
        decoder: CrossDecoderFactory = Decoder,
        shared_embedding: bool = False,
        context_dropout: float = 0.0,
        objective: ObjectiveFactory = NextToken,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory | None = WarmupCosine,
        val_decode_pairs: int | None = 256,
        compile: bool | dict[str, Any] = False,
        adapter: AdapterFactory | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, compile=compile)
        self.save_hyperparameters(logger=False)
        self.remember_config()
        check_decode_pairs(val_decode_pairs)
        refuse_evaluation(compile, "Seq2Seq")
        self.vocab = {name: vocab.get(name) for name in self.default_vocab}
        sizes = require_size(vocab, "source"), require_size(vocab, "target")
        self.network = EncoderDecoder(
            *sizes, encoder=encoder, decoder=decoder, shared_embedding=shared_embedding, context_dropout=context_dropout
        )
        adapt_network(self.network, adapter, frozen)
        shape, self.val_decode_pairs = ObjectiveShape.from_model(self.network.decoder, vocab), val_decode_pairs
        self.objective = objective(shape)
        self.objective.exclude([each for each in (self.vocab["pad"], self.vocab["start"]) if each is not None])
        self._step_mean = StepMean()

    def forward(
        self, src: Int[Tensor, "b m"], tgt: Int[Tensor, "b n"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss, as `loss` does; `network(src, tgt, mask)` gives the logits.

        Raises:
            ValueError: a source or a target is not of ids of its vocabulary, or a source is empty or all padding.
        """
        return self.loss(*read_pairs((src, tgt, mask), self.vocab))

    def loss(
        self, src: Int[Tensor, "b m"], tgt: Int[Tensor, "b n"], src_mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, ""]:
        """Return the mean loss of predicting each target token except the first, in nats; padding does not count.

        Args:
            src: source ids.
            tgt: target ids, the start token first, padded on the right.
            src_mask: True where a source id is real. None = everywhere.

        Raises:
            ValueError: a source is empty or all padding, or has an id outside the vocabulary.
        """
        self.text_generator.check(src, src_mask)
        return self._score(src, tgt, src_mask).minimised

    def _score(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None, inputs: Inputs | None = None) -> Loss:
        network: Callable[..., Any] = (self._compiled if self.training else None) or self.network
        loss: Loss = self.objective(
            lambda tokens, **options: network(src, tokens, src_mask, **options), tgt, self._mask_padding(tgt), inputs
        )
        return loss

    def _mask_padding(self, tgt: Tensor) -> Tensor | None:
        """Return where the targets are not padding."""
        return None if self.vocab["pad"] is None else tgt[:, 1:] != self.vocab["pad"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if isinstance(data := self.data_module, ParallelCorpus) and not self.trainer.training:
            # An evaluation reads its texts as training did, even if the training text has changed since.
            data.use_tokenizers(self.source_tokenizer, self.target_tokenizer, self._trained_length)

    def on_fit_start(self) -> None:
        self._check_tokenizers()
        prepare_fit(self.trainer, self.network, self.tokenizers)

    def _check_tokenizers(self) -> None:
        for use, ours in self._trained_with.items():
            check_same(use, ours, getattr(self.data_module, f"{use}_tokenizer", ours))

    def training_step(self, batch: PairBatch, batch_idx: int) -> Float[Tensor, ""]:
        ids, inputs = read_inputs(batch, self.data_inputs)
        loss = self._score(*read_pairs(ids, self.vocab), inputs)
        if self.logs_this_step:
            self.loss_terms.add(loss)
        return self._step_mean.add(loss, self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradients those of the mean over the target tokens of all processes."""
        mean = self._step_mean.scale(self, optimizer, self.step_batches)
        if self.logs_this_step:
            self.log("train/loss", mean, prog_bar=True)
        self.loss_terms.log(self)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.target_tokenizer.vocab_size == self.vocab["target"]:
            self.objective.exclude(self.target_tokenizer.unused)
        # An earlier fit may have stopped between two batches of a step.
        self._step_mean = StepMean()

    def begin_evaluation(self, split: str) -> None:
        self._check_tokenizers()
        decoded, shown = (self.val_decode_pairs, ROWS) if split == "val" else (None, 0)
        if self.needed_inputs or not self.decodes_evaluations:
            decoded = 0
        self._scores = PairScores(self.device, self.target_tokenizer, decoded, shown, getattr(self, "_scores", None))

    def evaluate(self, batch: EvaluationPairs | PairBatch) -> None:
        batch, inputs = read_evaluation_pairs(batch, self.data_inputs, self.vocab, self._scores.rows, self.trainer)
        src, tgt, src_mask, index = batch[:4]
        logits = self.evaluated_network(src, tgt[:, :-1], src_mask, inputs=inputs)
        scored = (index >= 0)[:, None].expand(-1, tgt.shape[1] - 1)
        real = self._mask_padding(tgt)
        scored = scored if real is None else scored & real
        loss = cross_entropy(logits, tgt[:, 1:], scored)
        self._scores.add(batch, loss, ((logits.argmax(-1) == tgt[:, 1:]) & scored).sum())
        if chosen := self._scores.select_rows(index):
            found, texts = decode_pairs(self.text_generator, batch, chosen, self.sampling)
            self._scores.compare(batch, chosen, found, self.source_tokenizer, texts)

    def read_example(self, batch: EvaluationPairs | PairBatch, most: int) -> Example:
        pairs = read_evaluation_pairs(batch, self.data_inputs, self.vocab, 0, self.trainer)[0]
        source, tgt = choose_pair(pairs, self._mask_padding(pairs.tgt), most)
        return Example(tgt[:, :-1], tgt[:, 1:], self.target_tokenizer, None, source, self.source_tokenizer)

    def collect_pairs(self) -> list[ShownPair]:
        return self._scores.collect_pairs(self.trainer)

    def compute_metrics(self) -> dict[str, Tensor]:
        return self._scores.compute(self.trainer)

    def predict_step(self, batch: Sequence[Source], batch_idx: int) -> list[dict[str, Any]]:
        return self.text_generator.complete_as_dicts(batch, self.sampling)

    @torch.no_grad()
    @refuse_unknown(GenerationOptions)
    def generate(
        self,
        src: Int[Tensor, "b m"],
        start_tokens: Int[Tensor, "b s"] | None = None,
        max_new_tokens: int | None = None,
        src_mask: Bool[Tensor, "b m"] | None = None,
        **choices: Any,
    ) -> Int[Tensor, "b n"]:
        """Return target tokens for each source, without the start tokens; padded after the end token of each row.

        Args:
            src: source ids.
            start_tokens: first tokens of each target. None = the start token.
            max_new_tokens: most tokens to produce. None = twice those of the source, and 32 more.
            src_mask: True where a source id is real. None = everywhere.
            choices: fields of `GenerationOptions`; greedy unless there is a `temperature`.

        Raises:
            ValueError: an option is out of range, a source is empty, or a token is outside its vocabulary.
        """
        chosen = GenerationOptions(max_new_tokens=max_new_tokens, **choices).require_single("generate returns")
        generator = self.text_generator
        return generator.decode(src, src_mask, starts=start_tokens, max_new_tokens=max_new_tokens, options=chosen)

    @refuse_unknown(GenerationOptions)
    def translate(self, texts: str | Sequence[str], **choices: Any) -> Any:
        """Translate by `GenerationOptions`: a text gives a text, texts give a list; an empty one gives an empty one."""
        options = GenerationOptions(**choices).require_single("translate returns")
        translated = read_texts(self.text_generator.translate_texts(texts, options))
        return translated[0] if isinstance(texts, str) else translated

    def limit_length(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> GenerationOptions:
        # Refuses a window or a method that the network does not support.
        self.text_generator.open_session(sampling)
        limit, most = self.network.decoder.max_length, sampling.max_new_tokens
        return sampling if limit is None or most is None else replace(sampling, max_new_tokens=min(limit - 1, most))

    def draw_samples(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> list[str]:
        if prompts is None:
            return describe_pairs(self.collect_pairs()[:EXAMPLES])
        return describe_results(self.text_generator.translate_texts(prompts, sampling))

    @property
    def source_tokenizer(self) -> Tokenizer:
        """Source tokenizer of the training data, else of the current data, else bytes."""
        return self.find_tokenizer("source", "source_tokenizer") or SpecialBytes()

    @property
    def target_tokenizer(self) -> Tokenizer:
        """Target tokenizer of the training data, else of the current data, else bytes."""
        return self.find_tokenizer("target", "target_tokenizer") or SpecialBytes()

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        return {"source": self.source_tokenizer, "target": self.target_tokenizer}

    @property
    def text_generator(self) -> Translator:
        """Translator of texts."""
        both = self.source_tokenizer, self.target_tokenizer
        return Translator(self.evaluated_network, *both, self.vocab, self.trained_length, self.decoding)
