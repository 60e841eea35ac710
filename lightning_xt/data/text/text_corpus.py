"""Base class of text corpora: options, tokens, windows, loaders."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

from torch.utils.data import Dataset

from lightning_xt.core.batch import LaneBatch
from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.sampler import CounterBatchSampler, batch_lanes_once, batch_windows_once
from lightning_xt.data.loading.workers import worker_options
from lightning_xt.data.prompt_files import Prompt, batch_prompts, read_prompts
from lightning_xt.data.text.corpus_tokens import CorpusTokens
from lightning_xt.data.text.lane_order import LaneOrder, describe_lanes, report_order
from lightning_xt.data.text.lanes import EvaluationLanes, TrainingLanes, count_needed
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.resident import ResidentTokens, Starts, WindowStarts, load_resident
from lightning_xt.data.text.shuffled_windows import ShuffledWindows
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.windows import EvaluationWindows, SampledWindows, TrainingWindows
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.system.option_checks import check_option

TokenizerFactory = Callable[[], Tokenizer]


class TextCorpus(DataModule):
    """A long text as windows of tokens; a subclass supplies the text.

    Tokens are bytes, or those of another tokenizer, which are written once to the data folder.

    Batches are `LongTensor (batch_size, seq_len + 1)` for training, `EvaluationBatch` for validation and test, a
    `LaneBatch` for all three in lanes, and a list of `Prompt` for prediction.

    Args:
        seq_len: tokens that a window predicts; it holds one more.
        batch_size: windows per training step of one process.
        eval_batch_size: windows per evaluation step of one process; None means `batch_size`.
        stride: tokens from one evaluation window to the next, 1 to `seq_len`; a smaller stride gives each token more
            context and takes longer. None means `seq_len`.
        order: order of the windows. With `lanes` the text is cut into one part for each window of an optimizer step,
            and each row of a batch continues the row of the batch before, for models with a memory across segments;
            a pass over the text begins at an offset drawn from the seed. A run in lanes resumes with the same text,
            `seq_len`, `seed` and windows a step, on any number of processes. Other windows continue nothing, not in
            evaluation either: `random` ones are drawn each by itself, and `shuffled` ones are those of the whole
            text, from another offset and in another order in each epoch.
        eval_lanes: parts of a split, with the order `lanes`, that evaluation reads next to each other. Each begins
            without memory: more are faster, and fewer bring the figures closer to those of one reading.
        seed: chooses the sequence of training windows.
        num_workers: loader processes of each training process; 0 loads batches in a thread.
        resident: whether to copy the training tokens to the device and gather windows there; `auto` does so on a GPU
            whose free memory holds them four times.
        predict_prompts: UTF-8 text file with one prompt per line, for `predict`, or a .jsonl file of objects with a
            `prompt`; None means no prompts.
        tokenizer: the tokenizer's class and options; one that learns does so on the training split. None = bytes.
    """

    def __init__(
        self,
        *,
        seq_len: int = 256,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        stride: int | None = None,
        order: Literal["random", "shuffled", "lanes"] = "random",
        eval_lanes: int = 16,
        seed: int = 0,
        num_workers: int = 0,
        resident: bool | Literal["auto"] = "auto",
        predict_prompts: str | None = None,
        tokenizer: TokenizerFactory | None = None,
    ) -> None:
        super().__init__(seed=seed)
        # `logger=False`: Lightning refuses a data option with the name of a model option and another value.
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            # Built from live objects, which a checkpoint loaded with `weights_only=True` cannot hold.
            self.hparams.clear()
        where = type(self).__name__
        check_option(where, "--data.seq_len", seq_len, least=1)
        check_option(where, "--data.batch_size", batch_size, least=1)
        check_option(where, "--data.num_workers", num_workers, least=0)
        check_option(where, "--data.eval_batch_size", eval_batch_size, least=1)
        check_option(where, "--data.eval_lanes", eval_lanes, least=1)
        if order == "lanes" and stride is not None:
            raise ValueError(
                f"--data.stride {stride} lets windows overlap, but --data.order lanes reads the text once, in order; "
                "omit one of them"
            )
        if stride is not None and not 1 <= stride <= seq_len:
            raise ValueError(
                f"--data.stride must be from 1 to --data.seq_len ({seq_len}), not {stride}, or tokens would be "
                f"skipped; omit --data.stride for {seq_len}"
            )
        self.seq_len = self.trained_length = seq_len
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.stride = stride
        self.order, self.eval_lanes = order, eval_lanes
        self.num_workers = num_workers
        self.resident = resident
        self.predict_prompts = predict_prompts
        self.tokens = CorpusTokens((tokenizer or Bytes)(), self.prepare, self.describe)
        self._prompts: list[Prompt] = []
        self._on_device: ResidentTokens | None = None
        self._lanes: int | None = None
        """Lanes of a run that is replayed without a Trainer."""

    @abstractmethod
    def prepare(self) -> Splits:
        """Prepare the text on disk, as bytes. Cheap if done before; safe in several processes at once."""

    @abstractmethod
    def describe(self) -> str:
        """Name the corpus in messages, with the option that chose it."""

    def suggestions(self, split: str) -> str:
        """Return what messages propose if a split is too short, besides a smaller `seq_len`."""
        return "give more text"

    @property
    def vocab(self) -> dict[str, int | None]:
        """Sizes and special ids of the tokenizer, for source and target alike."""
        tokenizer = self.tokenizer
        sizes: dict[str, int | None] = dict.fromkeys(("source", "target"), tokenizer.vocab_size)
        special = {"pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}
        return {**sizes, **special, "separator": self.separator}

    def samples_after(self, first: int, batches: int) -> int:
        _, world = self.rank_and_world
        return first + batches * self.batch_size * world

    def describe_size(self, batches: int) -> str:
        step = self.samples_after(0, batches) * self.seq_len
        order = f", in {self.lanes} lanes" if self.order == "lanes" else ""
        size = "" if self.tokens.are_bytes else f" of {self.bytes_per_token():.2f} bytes"
        return f"{len(self.require_split('train')):,} tokens{size}, {step:,} tokens a step{order}"

    @property
    def lanes(self) -> int:
        """Lanes of the training text with the order `lanes`: the windows of an optimizer step of all processes."""
        if self.trainer is None:
            return self._lanes or self.samples_after(0, 1)
        return self.samples_after(0, self.trainer.accumulate_grad_batches)

    def describe_order(self) -> dict[str, int | str]:
        if self.order == "lanes":
            return {"lanes": self.lanes, "seq_len": self.seq_len, "seed": self.seed}
        return {} if self.order == "random" else {"order": self.order}

    def check_order(self, state_dict: dict[str, Any]) -> None:
        if not state_dict["samples_seen"]:
            return
        if self.order != "lanes":
            report_order(state_dict, self.order)
        elif self.trainer is None:
            self._lanes = state_dict.get("lanes")
        else:
            LaneOrder(self.lanes, self.seq_len, self.seed, self.content_hash).check(state_dict, self._describe_lanes())

    def _describe_lanes(self) -> str:
        """Describe the number of lanes by the options that give it."""
        return describe_lanes(self.lanes, self.batch_size, self.rank_and_world[1])

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text."""
        return self.tokens.tokenizer

    @property
    def separator(self) -> int | None:
        """The id that opens each document; None if documents are not separated."""
        return self.tokens.separator

    @property
    def splits(self) -> Splits:
        """The tokens of each split, prepared at the first access."""
        return self.tokens.splits

    @property
    def content_hash(self) -> str:
        """SHA-256 of the text's splits and of the tokenizer, unless it is bytes."""
        return self.tokens.hash

    def bytes_per_token(self, split: str = "train") -> float:
        return self.tokens.bytes_per_token(split)

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Use a learned tokenizer, such as that of a checkpoint, in place of one that would learn."""
        self.tokens.use_tokenizer(tokenizer)

    def prepare_data(self) -> None:
        """Prepare the corpus once per machine; `predict` needs none."""
        if self.trainer is None or not self.trainer.predicting:
            # Hash now; else training would wait for the hash at the first checkpoint.
            _ = self.content_hash
            # An evaluation may get its tokenizer from a checkpoint, which is loaded later.
            if self.tokenizer.is_ready or (self.trainer is not None and self.trainer.training):
                _ = self.splits

    def setup(self, stage: str) -> None:
        """Open the data of a stage: the prompts for `predict`, else the corpus.

        Raises:
            ValueError, FileNotFoundError: the corpus, the split of the stage, or the prompts are missing or malformed.
        """
        if stage == "predict":
            self._prompts = read_prompts(self.predict_prompts, may_be_empty=self.tokenizer.start is not None)
            return
        if stage == "fit":
            self._build_training_windows()
            if self.splits.validation is not None:
                self.require_split("validation")
        elif self.tokenizer.is_ready:
            self.require_split("test" if stage == "test" else "validation")

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        batches = CounterBatchSampler(self.batch_size, start=self.next_sample, rank=rank, world=world)
        windows = self._build_training_windows()
        tokens = self.require_split("train")
        self._on_device = load_resident(tokens, self._device, self.resident, self.describe())
        return self._build_window_loader(windows if self._on_device is None else Starts(windows), batches)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Gather the windows of a batch on the device if the tokens are resident."""
        if isinstance(batch, WindowStarts) and self._on_device is not None:
            tokens = self._on_device.windows(batch.starts, self.seq_len)
            return tokens if batch.place is None else LaneBatch(tokens, None, *batch.place)
        return batch

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return this process's validation windows; no loader if there is no validation split."""
        return [] if self.tokens.text.validation is None else self._build_evaluation_loader("validation")

    def test_dataloader(self) -> Loader:
        """Return this process's test windows."""
        return self._build_evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return this process's prompts in lists of at most `eval_batch_size`."""
        return Loader(batch_prompts(self._prompts, self.eval_batch_size, *self.rank_and_world))

    def _build_training_windows(self) -> SampledWindows | TrainingLanes:
        """Build the numbered training windows; ValueError if the text is too short for them."""
        tokens = self.require_split("train")
        if self.order == "random":
            return TrainingWindows(tokens, self.seq_len, self.seed)
        if self.order == "shuffled":
            return ShuffledWindows(tokens, self.seq_len, self.seed)
        needed = count_needed(self.seq_len, self.lanes)
        if len(tokens) < needed:
            raise ValueError(
                f"--data.order lanes needs {needed:,} tokens of training text, a window of --data.seq_len "
                f"{self.seq_len} for each lane and one more, but {self.describe()} has {len(tokens):,}, and "
                f"{self._describe_lanes()} lanes; lower --data.batch_size or --data.seq_len, omit --data.order, or "
                f"{self.suggestions('train')}"
            )
        batch = self.samples_after(0, 1)
        return TrainingLanes(tokens, self.seq_len, self.seed, lanes=self.lanes, batch=batch)

    def _build_evaluation_loader(self, split: str) -> Loader:
        tokens = self.require_split(split)
        rank, world = self.rank_and_world
        if self.order == "lanes":
            lanes = EvaluationLanes(tokens, self.seq_len, self.eval_lanes)
            rows = batch_lanes_once(lanes.lanes, lanes.length, self.eval_batch_size, rank=rank, world=world)
            return self._build_window_loader(lanes, rows)
        windows = EvaluationWindows(tokens, self.seq_len, self.stride)
        batches = batch_windows_once(len(windows), self.eval_batch_size, rank=rank, world=world)
        return self._build_window_loader(windows, batches)

    def _build_window_loader(self, windows: Dataset[Any], batches: Iterable[list[int]]) -> Loader:
        return self._build_loader(
            windows,
            batch_sampler=batches,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **worker_options(self.num_workers),
        )

    def require_split(self, split: str) -> MappedTokens:
        """Return the tokens of a split; raise a ValueError if it is shorter than one window."""
        tokens: MappedTokens | None = getattr(self.splits, split)
        if tokens is None:
            raise ValueError(f"{self.describe()} has no {split} split; {self.suggestions(split)}")
        if len(tokens) <= self.seq_len:
            smaller = f"lower --data.seq_len to at most {len(tokens) - 1} or " if len(tokens) > 1 else ""
            raise ValueError(
                f"--data.seq_len {self.seq_len} needs at least {self.seq_len + 1} tokens in a split, but the {split} "
                f"split of {self.describe()} has {len(tokens)}; {smaller}{self.suggestions(split)}"
            )
        return tokens
