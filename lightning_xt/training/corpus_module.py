"""Base of the models that train on rows of a corpus."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lightning_xt.checkpoints.checkpoint_schema import MEMORIES_KEY
from lightning_xt.core.batch import EvaluationBatch, LaneBatch, PackedBatch
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.packed_documents import find_documents
from lightning_xt.data.base import DataModule
from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.nn.segments.base import Segments
from lightning_xt.objectives.base import Loss
from lightning_xt.training.batches import read_inputs, read_tokens
from lightning_xt.training.carried_memories import CarriedMemories
from lightning_xt.training.evaluation_forward import EvaluationForward
from lightning_xt.training.figures.example import Example
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.step_mean import StepMean
from lightning_xt.training.trained_tokenizers import check_same, write_tokenizers


class CorpusModule(TransformerModule):
    """Base of the models that read rows of tokens. Subclasses add the network, the loss, the metrics and texts.

    `model(tokens)` is the loss. Batches are `LongTensor (b, seq_len + 1)`, a `LaneBatch` in lanes, a `PackedBatch` of
    several examples a row, and for validation and test also `EvaluationBatch`; loaders of other data may put the tensor
    into a list, or into a dict with other inputs.
    """

    vocab_size: int
    """Number of different tokens."""
    first_read: ClassVar[int] = 0
    """Index of the first of n + 1 tokens that the network reads."""
    separator: int | None
    """Id that opens each document of a row. None = rows are not of several documents."""
    default_vocab: ClassVar = {"source": 256, "target": 256, "pad": None, "start": None, "end": None, "separator": None}
    plain_lines: ClassVar = False
    foreign_data: ClassVar = {
        ParallelCorpus: "pairs of a source and its target; set --model Seq2Seq, or --data TextFiles or other text",
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._step_mean = StepMean()
        """Losses of the optimizer step so far."""
        self._excess: str | None = None
        """Sentence about prompts that are longer than the training data, or become so."""
        self._memories, self._evaluated_memories = CarriedMemories(), CarriedMemories()
        self._evaluation_forward = EvaluationForward(False, None)
        self._saved_memories: dict[str, Tensor] | None = None
        """Memories of all rows in the checkpoint from which the run resumes."""

    def add_documents(self, tokens: Int[Tensor, "b m"], inputs: Inputs | None) -> Inputs | None:
        """Add the documents of the n tokens that the network reads, of n + 1, to its inputs."""
        if self.separator is None or (inputs is not None and inputs.documents is not None):
            return inputs
        documents = find_documents(tokens[:, self.first_read :], self.separator)
        return replace(inputs or Inputs(), documents=documents[:, : tokens.shape[1] - 1])

    def score(
        self, network: Callable[..., Any], tokens: Tensor, scored: Tensor | None, inputs: Inputs | None = None
    ) -> Loss:
        """Return the loss of a network on rows of n + 1 tokens; `scored` is True where one of the last n counts."""
        loss: Loss = self.objective(network, tokens, scored, self.add_documents(tokens, inputs))
        return loss

    def forward(
        self, tokens: Int[Tensor, "b m"], scored: Bool[Tensor, "b n"] | None = None, inputs: Inputs | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss, as `loss` does; `network(tokens)` gives the logits.

        Raises:
            ValueError: the tokens are not ids of the vocabulary, or fewer than two a row.
        """
        return self.loss(read_tokens(tokens, self.vocab_size), scored, inputs)

    def loss(
        self, tokens: Int[Tensor, "b m"], scored: Bool[Tensor, "b n"] | None = None, inputs: Inputs | None = None
    ) -> Float[Tensor, ""]:
        """Return the mean loss of the predicted tokens, in nats.

        In training the auxiliary terms of parts and of the objective are added.

        Args:
            tokens: n + 1 ids per row.
            scored: True where one of the last n tokens counts. None = all.
            inputs: inputs of the network besides the n tokens that it reads.
        """
        return self._score_training(tokens, scored, inputs).minimised

    @property
    def segments(self) -> tuple[Segments, int] | None:
        """Segments of the network and the number of its calls that read memories. None = it has no memory."""
        return None

    def keep_memories(self, memories: CarriedMemories, batch: Any, loss: Loss) -> None:
        """Keep what the rows of a batch leave; ValueError if the objective loses it."""
        if self.segments is not None and loss.memories is None and isinstance(batch, LaneBatch):
            raise ValueError(
                f"objective: {type(self.objective).__name__} keeps no memories, which the model's segments leave to "
                "the next batch; set them in its Loss, or set --data.order random"
            )
        memories.keep(batch, loss.memories)

    def loss_with_logits(
        self, tokens: Int[Tensor, "b m"], scored: Bool[Tensor, "b n"] | None = None, inputs: Inputs | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b _ v"]]:
        """Return the loss, as `loss` does, and the logits of the predicted tokens, from one forward."""
        found = self._score_training(tokens, scored, inputs)
        return found.minimised, self.require_logits(found)

    def require_logits(self, loss: Loss) -> Float[Tensor, "b _ v"]:
        """Return the logits of a loss; ValueError if the objective keeps none."""
        if loss.logits is None:
            raise ValueError(f"objective: {type(self.objective).__name__} keeps no logits; set them in its Loss")
        return loss.logits

    def _score_training(self, tokens: Tensor, scored: Tensor | None, inputs: Inputs | None = None) -> Loss:
        network = self._compiled if self.training and self._compiled is not None else self.network
        return self.score(network, tokens, scored, inputs)

    def on_train_batch_start(self, *args: Any) -> None:
        super().on_train_batch_start(*args)
        self.objective.step_seed = self.step_seed

    def on_train_end(self) -> None:
        self.objective.step_seed = None

    def training_step(self, batch: Any, batch_idx: int) -> Float[Tensor, ""]:
        if isinstance(batch, PackedBatch):
            loss = self._score_training(*self.read_packed(batch))
        else:
            given = batch.tokens if isinstance(batch, LaneBatch) else batch
            ids, inputs = read_inputs(given, self.data_inputs, self.first_read)
            inputs = self._memories.add(batch, inputs)
            loss = self._score_training(read_tokens(ids, self.vocab_size), None, inputs)
            self.keep_memories(self._memories, batch, loss)
        if self.logs_this_step:
            self.loss_terms.add(loss)
        return self._step_mean.add(loss, self.trainer.world_size)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradients those of the mean over the targets of all batches and processes, and log it."""
        if not self._step_mean.is_empty:
            mean = self._step_mean.scale(self, optimizer, self.step_batches)
            if self.logs_this_step:
                self.log("train/loss", mean, prog_bar=True)
        self.loss_terms.log(self)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.tokenizer.vocab_size == self.vocab_size:
            self.objective.exclude(self.tokenizer.unused)
        # An earlier fit may have stopped between two batches of a step.
        self._step_mean = StepMean()
        # Perhaps as CUDA graphs.
        self._memories.copies = self._compiled is not None
        if self._saved_memories and self.segments is not None and self.trainer.global_step:
            self._memories.restore(self._saved_memories, self.trainer, *self.segments)
        self._saved_memories = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._trainer is not None and (memories := self._memories.gather(self._trainer)):
            checkpoint[MEMORIES_KEY] = memories

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self._memories, self._saved_memories = CarriedMemories(), checkpoint.get(MEMORIES_KEY)
        data, trained = self.data_module, self._trained_with.get("text")
        if isinstance(data, (TextCorpus, Conversations)) and trained is not None:
            # Texts are read as in training until now, even if they have changed.
            data.use_tokenizer(trained)

    def on_fit_start(self) -> None:
        self._check_tokenizer()
        if getattr(self.data_module, "tokenizer", None) is not None:
            # From here on the data's: its ids mean the same, and it knows whether documents are separated.
            self._trained_with = {}
        write_tokenizers(self.trainer, self.tokenizers)

    def _check_tokenizer(self) -> None:
        """Refuse a text whose tokens are not those of the weights."""
        data, trained = self.data_module, self._trained_with.get("text")
        # Whether bytes separate documents may differ.
        if isinstance(data, (TextCorpus, Conversations)) and trained is not None and not isinstance(trained, Bytes):
            check_same("text", trained, data.tokenizer)

    def measure_tokens(self, split: str) -> float:
        """Return the mean bytes of a token of `val` or `test`; 1 if they are unknown."""
        data = self.data_module
        found = (
            data.bytes_per_token("validation" if split == "val" else split) if isinstance(data, DataModule) else None
        )
        return 1.0 if found is None else found

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self._evaluation_forward = EvaluationForward(False, None)

    def begin_evaluation(self, split: str) -> None:
        self._check_tokenizer()
        # Perhaps as CUDA graphs.
        self._evaluated_memories = CarriedMemories(copies=self.compile_options is not False)
        batches = self.trainer.num_val_batches if split == "val" else self.trainer.num_test_batches
        # Shards are compiled block by block, for training; and where training cannot be compiled it has said so.
        compiles = self.device_mesh is None and (self.trainer.state.fn != "fit" or self._compiled is not None)
        # The weights of another network, such as int8 ones, are not compiled.
        compiles &= self.evaluated_network is self.network
        total = sum(batches) * self.trainer.world_size
        if self._evaluation_forward.network is not self.evaluated_network:
            # Also that of a copy of this module which evaluates other weights.
            self._evaluation_forward = EvaluationForward(self.compile_options, self.evaluated_network)
        self._evaluation_forward.begin(total, compiles=compiles)

    def read_packed(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Inputs]:
        """Return ids, mask and inputs of rows of several examples; ValueError if the model reads other tokens."""
        if self.first_read:
            raise ValueError(
                f"{type(self).__name__} does not read a PackedBatch, whose targets follow their prompts; train a "
                "LanguageModel"
            )
        return read_tokens(batch.tokens, self.vocab_size), batch.scored, Inputs(documents=batch.documents)

    def read_evaluation(self, batch: Any) -> tuple[Tensor, Tensor | None, Inputs | None]:
        """Return ids, mask and inputs of a batch of an evaluation; ValueError if it is malformed."""
        if isinstance(batch, (EvaluationBatch, LaneBatch)):
            return batch.tokens, batch.scored, None
        if isinstance(batch, PackedBatch):
            return self.read_packed(batch)
        ids, inputs = read_inputs(batch, self.data_inputs, self.first_read)
        return read_tokens(ids, self.vocab_size), None, inputs

    def read_example(self, batch: Any, most: int) -> Example:
        tokens = self.read_evaluation(batch)[0][:1, : most + 1]
        documents = batch.documents if isinstance(batch, PackedBatch) else None
        packed = None if documents is None else Inputs(documents=documents[:1, :most])
        inputs, first = self.add_documents(tokens, packed), self.first_read
        read = tokens[:, first : first + tokens.shape[1] - 1]
        return Example(read, tokens[:, 1:] if first == 0 else None, self.tokenizer, inputs)

    def on_predict_end(self) -> None:
        if self._excess is not None:
            rank_zero_info(self._excess)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the training data, else of the current data, else bytes."""
        return self.find_tokenizer("text", "tokenizer") or Bytes(separator=self.separator)

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        return {"text": self.tokenizer}
