"""Training of an encoder as a masked language model."""

from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.optim import AdamW

from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.probes.base import Probe
from lightning_xt.data.prompt_files import Prompt, number_prompts
from lightning_xt.inference.gap_filling import GAP, GapFiller
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import TextGenerator, list_texts
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderFactory
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.nn.adapters.base import AdapterFactory
from lightning_xt.nn.heads.base import HeadFactory
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.objectives.cross_entropy import IGNORED, cross_entropy
from lightning_xt.objectives.masked_objective import MaskedObjective, MaskedObjectiveFactory
from lightning_xt.objectives.masked_tokens import MaskedTokens
from lightning_xt.system.option_checks import check_slots
from lightning_xt.training.corpus_module import CorpusModule
from lightning_xt.training.metrics.likelihood import LikelihoodSums
from lightning_xt.training.module import TransformerModule, require_size
from lightning_xt.training.network_adaptation import adapt_network
from lightning_xt.training.optim.parameter_groups import OptimizerFactory
from lightning_xt.training.optim.schedules.base import ScheduleFactory
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine

PROMPTS = (f"import {GAP}s", f"de{GAP} main", f"The {GAP} of")
"""Prompts of a validation by default."""


class MaskedLanguageModel(CorpusModule):
    """Encoder that learns to predict hidden tokens from those before and after them.

    `model(tokens)` is the loss. Batches are `LongTensor (b, seq_len + 1)`, for validation and test also
    `EvaluationBatch`; the model reads the last seq_len tokens of a row. It fills gaps and continues no text.

    Args:
        vocab: sizes and special ids; from the command line the data's. The mask token is one more id. A separator keeps
            documents apart: attention does not cross it, and positions start again.
        encoder: reads the text.
        head: factory of the map from hidden states to logits.
        objective: training loss.
        optimizer: MuonAdamW, or a class of torch.optim that takes groups of parameters of any shape, which Muon and
            LBFGS do not. Embeddings, norms and biases do not decay.
        schedule: learning rate over the run, in optimizer steps. None = constant.
        compile: whether training uses torch.compile; or its keywords, such as {mode: max-autotune}.
        adapter: added to the network and trained in its place, such as LoRA; the network is frozen. None = no adapter.
        frozen: patterns of names of the network's parameters that do not train, such as `*embedding*`.

    Examples:
        >>> import torch
        >>> from lightning_xt import MaskedLanguageModel
        >>> model = MaskedLanguageModel.from_config({"encoder": {"dim": 64, "depth": 2}})
        >>> model(torch.zeros(2, 17, dtype=torch.long)).backward()
        >>> len(model.fill("The [MASK]at")["text"])
        7
    """

    network: EncoderWithHead
    objective: MaskedObjective
    first_read: ClassVar = 1
    foreign_data: ClassVar = {
        **CorpusModule.foreign_data,
        Probe: "answers that follow their questions; set --model LanguageModel, or --data TextFiles or other text",
        Conversations: "responses that follow their prompts; set --model LanguageModel, or --data TextFiles or other "
        "text",
    }
    shown_metrics: ClassVar = ("loss", "token_accuracy")
    logged: ClassVar = (*TransformerModule.logged, "val/loss", "val/token_accuracy", "val/perplexity")
    no_generation: ClassVar = (
        "a MaskedLanguageModel fills gaps and continues no text; give predict prompts with [MASK] in the place of "
        "each hidden token"
    )

    @check_slots
    def __init__(
        self,
        vocab: dict[str, int | None],
        encoder: EncoderFactory = Encoder,
        head: HeadFactory = TiedHead,
        objective: MaskedObjectiveFactory = MaskedTokens,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory | None = WarmupCosine,
        compile: bool | dict[str, Any] = False,
        adapter: AdapterFactory | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, compile=compile)
        self.save_hyperparameters(logger=False)
        self.remember_config()
        self.vocab_size, self.separator = require_size(vocab, "target"), vocab.get("separator")
        self.network = EncoderWithHead(self.vocab_size, encoder=encoder, head=head)
        adapt_network(self.network, adapter, frozen)
        self.objective = objective(ObjectiveShape.from_model(self.network, vocab, mask=self.network.mask_token))

    def begin_evaluation(self, split: str) -> None:
        super().begin_evaluation(split)
        self._sums = LikelihoodSums(self.device)
        self._correct = torch.zeros_like(self._sums.sums[:1])

    def evaluate(self, batch: Any) -> None:
        tokens, scored, inputs = self.read_evaluation(batch)
        inputs = self.add_documents(tokens, inputs)
        logits, targets, _ = self.objective.predict(self._evaluation_forward, tokens, scored, inputs)
        self._sums.add(cross_entropy(logits, targets))
        self._correct += ((logits.argmax(dim=-1) == targets) & (targets != IGNORED)).sum()

    def compute_metrics(self) -> dict[str, Tensor]:
        """Compute loss in nats per hidden token, perplexity, and token_accuracy from 0 to 1."""
        sums = self.trainer.strategy.reduce(torch.cat((self._sums.sums, self._correct)), reduce_op="sum")
        nats, tokens, correct = sums.unbind()
        loss, accuracy = nats / tokens.clamp(min=1), correct / tokens.clamp(min=1)
        return {"loss": loss.float(), "perplexity": loss.exp().float(), "token_accuracy": accuracy.float()}

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[dict[str, Any]]:
        _refuse_unused(self.sampling)
        if note := self.gap_filler.find_excess([prompt["prompt"] for prompt in batch]):
            self._excess = note
        return self.gap_filler.fill(batch, self.sampling.top_k, self.sampling.batch)

    def fill(self, texts: str | Sequence[str], candidates: int | None = None) -> Any:
        """Fill gaps: `[MASK]` in a text stands for one token. A text gives a dict, texts give a list of dicts.

        Args:
            texts: one or several texts with gaps.
            candidates: most likely tokens to report for each gap. None = 5.

        Returns:
            Dicts as `predict` writes them: `prompt`, `text` with all gaps filled, and `gaps` with the most likely
            tokens of each and their probabilities.

        Raises:
            ValueError: a text has no gap, or more tokens than the model has positions.
        """
        found = self.gap_filler.fill(number_prompts(list_texts(texts)), candidates)
        return found[0] if isinstance(texts, str) else found

    def generate(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse: a masked language model fills gaps; see `fill`."""
        raise ValueError(self.no_generation)

    def limit_length(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> GenerationOptions:
        for prompt in prompts or ():
            self.gap_filler.encode(prompt)
        return sampling

    def draw_samples(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> list[str]:
        chosen = PROMPTS if prompts is None else prompts
        return [
            f"prompt  {each['prompt']}\nfilled  {each['text']}"
            for each in self.gap_filler.fill(number_prompts(chosen), sampling.top_k, sampling.batch)
        ]

    @property
    def gap_filler(self) -> GapFiller:
        """Filler of gaps."""
        return GapFiller(self.network, self.tokenizer, self.trained_length)

    @property
    def text_generator(self) -> TextGenerator:
        raise ValueError(self.no_generation)


def _refuse_unused(sampling: GenerationOptions) -> None:
    """Raise a ValueError for options of generation that filling does not use."""
    default = GenerationOptions()
    for name, value in vars(sampling).items():
        if name not in ("top_k", "batch") and value and value != getattr(default, name):
            raise ValueError(
                f"sampling: {name} is for generation, but gaps are filled with the most likely tokens; omit it, or set "
                "top_k, the number of tokens that are reported for each gap"
            )
