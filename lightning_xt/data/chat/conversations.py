"""Prompts with responses, and conversations, packed into rows for a language model."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.base import DataModule
from lightning_xt.data.chat.chat_templates import USER, find_template
from lightning_xt.data.chat.conversation_files import ConversationReader, parse_field_names
from lightning_xt.data.chat.conversation_texts import ConversationTexts
from lightning_xt.data.chat.encoded_conversations import EncodedConversations, encode_conversations
from lightning_xt.data.chat.packed_rows import PackedRows, pack
from lightning_xt.data.files.paths import require_path
from lightning_xt.data.held_out import parse_held_out
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.loading.sampler import CounterBatchSampler, batch_windows_once
from lightning_xt.data.loading.shuffled_order import ShuffledOrder
from lightning_xt.data.prompt_files import Prompt, batch_prompts, read_prompts
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.unused_ids import report_unused
from lightning_xt.system.option_checks import check_option

TokenizerFactory = Callable[[], Tokenizer]


class Conversations(DataModule):
    r"""Serve prompts with their responses, or conversations, to a language model that learns the responses only.

    Each line of the files is an object: `{"prompt": ..., "response": ...}`, or `{"messages": [{"role": "user",
    "content": ...}, {"role": "assistant", "content": ...}, ...]}`, of which every message of the assistant is a
    response; messages after the last response are not read. The template makes a text of it, as `lightning-xt serve`
    does with `--chat_template`. The start id opens a conversation and the end id ends it, if the tokenizer has them.

    Whole conversations are packed into rows of `seq_len + 1` tokens; attention does not cross them, and positions start
    again with each. The loss counts the tokens of responses, the stop string or end id after each included, and is a
    mean over those of all rows of an optimizer step. Batches are `PackedBatch`.

    Args:
        path: files of JSON lines, plain or `.gz`: one file, a folder, or a pattern such as 'chats/*.jsonl' (quote it).
            `~` is the home folder; a relative path is looked up in the current folder, then in the data folder.
        validation: the fraction of the conversations of `path`, before the test split, that is held out for validation
            (0 means no validation); or a path like `path`, whose conversations are all the validation split. A file
            that both name is not trained on.
        test: the test split likewise; as a fraction it is cut from the end of `path`.
        template: text around the messages: turns, chatml, alpaca, plain (nothing around them), or a YAML or JSON file,
            as `serve` reads it.
        fields: names of fields that are called otherwise: of prompt, input, response, messages, role and content, such
            as {prompt: question, response: answer}. A text in the field `input` follows the prompt.
        tokenizer: the tokenizer's class and options; one that learns does so on the training split. None = bytes.
        seq_len: tokens that a row predicts; it holds one more.
        too_long: whether training conversations with more than `seq_len + 1` tokens are dropped (`drop`) or cut on the
            right (`truncate`). Validation and test always cut. What is left without a response is dropped.
        batch_size: rows per training step of one process.
        eval_batch_size: rows per evaluation step of one process; None means `batch_size`.
        seed: chooses the order of the rows in each epoch.
        predict_prompts: UTF-8 text file with one message of a user per line, for `predict`, or a .jsonl file of objects
            with a `prompt`; None means no prompts.

    Examples:
        >>> from pathlib import Path
        >>> from lightning_xt import Conversations
        >>> written = Path("sums.jsonl").write_text('{"prompt": "2+2", "response": "4"}\n' * 9)
        >>> data = Conversations("sums.jsonl", seq_len=63, batch_size=2)
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch.tokens.shape, batch.scored.shape
        (torch.Size([2, 64]), torch.Size([2, 63]))
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        validation: float | str = 0.05,
        test: float | str = 0.05,
        template: str = "turns",
        fields: dict[str, str] | None = None,
        tokenizer: TokenizerFactory | None = None,
        seq_len: int = 256,
        too_long: Literal["drop", "truncate"] = "drop",
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        seed: int = 0,
        predict_prompts: str | None = None,
    ) -> None:
        super().__init__(seed=seed)
        check_option("Conversations", "--data.seq_len", seq_len, least=1)
        check_option("Conversations", "--data.batch_size", batch_size, least=1)
        check_option("Conversations", "--data.eval_batch_size", eval_batch_size, least=1)
        self.path = require_path(path)
        self.template = find_template(template, "--data.template")
        self.stop = self.template.stop
        self.seq_len = self.trained_length = seq_len
        self.too_long, self.batch_size = too_long, batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.predict_prompts = predict_prompts
        self.tokenizer = (tokenizer or Bytes)().for_examples()
        self._learns = not self.tokenizer.is_ready
        names, splits = parse_field_names(fields), parse_held_out(validation, test)
        reader = ConversationReader(self.template, template, names, has_end=self.tokenizer.end is not None)
        self._texts = ConversationTexts(self.path, splits, reader)
        # The tokenizer before it learns: processes compare hashes of the data before that.
        tokens = type(self.tokenizer).__name__, sorted(self.tokenizer.init_args.items())
        self._options = self.template, names, splits.fractions, tokens
        self._rows: dict[str, PackedRows] = {}
        self._prompts: list[Prompt] = []
        self._hash: str | None = None

    @property
    def vocab(self) -> dict[str, int | None]:
        """Sizes and special ids of the tokenizer. There is no separator: batches bring the numbers of documents."""
        tokenizer = self.tokenizer
        sizes: dict[str, int | None] = dict.fromkeys(("source", "target"), tokenizer.vocab_size)
        return {**sizes, "pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end, "separator": None}

    def samples_after(self, first: int, batches: int) -> int:
        return first + batches * self.batch_size * self.rank_and_world[1]

    def describe(self) -> str:
        """Name the data in messages, with the option that chose them."""
        return f"--data.path {self.path}"

    def describe_size(self, batches: int) -> str:
        rows = self._open("train")
        found = rows.conversations
        return (
            f"{len(found.lengths):,} conversations with {int(found.scored.sum()):,} tokens of responses, in "
            f"{len(rows):,} rows that are {rows.fill:.0%} full, {self.samples_after(0, batches):,} rows a step"
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 of the files and of the options that make their tokens."""
        if self._hash is None:
            made = self._texts.hash_files(), self._options
            self._hash = hashlib.sha256(repr(made).encode()).hexdigest()
        return self._hash

    def bytes_per_token(self, split: str = "train") -> float | None:
        """Return the mean bytes of a token of the responses of an evaluation; None for training, which has others."""
        if split == "train":
            return None
        found = self._open(split).conversations
        return found.response_bytes / max(1, int(found.scored.sum()))

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Use a learned tokenizer, such as that of a checkpoint, in place of one that would learn."""
        if self._learns and tokenizer.trained_state != self.tokenizer.trained_state:
            self.tokenizer = tokenizer.for_examples()
            self._rows.clear()

    def prepare_data(self) -> None:
        """Hash the files once per machine; `predict` needs none."""
        if self.trainer is None or not self.trainer.predicting:
            _ = self.content_hash

    def setup(self, stage: str) -> None:
        """Open the data of a stage: the prompts for `predict`, else the conversations.

        Raises:
            ValueError, FileNotFoundError: a file, the split of the stage, or the prompts are missing or malformed.
        """
        if stage == "predict":
            if USER not in self.template.roles:
                raise ValueError(
                    f"--data.predict_prompts are messages of the role {USER}, which the template of {self.describe()} "
                    "does not have; describe it in the file of --data.template"
                )
            # Around an empty message the template writes text, or the start id precedes it.
            speaks = self.tokenizer.start is not None or bool(self.template.render([(USER, "")]))
            prompts = read_prompts(self.predict_prompts, may_be_empty=speaks)
            asked = [self.template.render([(USER, each["prompt"])]) for each in prompts]
            self._prompts = [Prompt(**each | {"prompt": text}) for each, text in zip(prompts, asked, strict=True)]
            return
        split = "test" if stage == "test" else "validation"
        if stage == "fit":
            self._open("train")
        # An evaluation may get its tokenizer from a checkpoint, which is loaded later.
        if self.tokenizer.is_ready and (stage != "fit" or self._texts.has_split(split)):
            self._open(split)
        self._texts.forget()

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        rows = self._open("train")
        order = ShuffledOrder(len(rows), self.seed)
        shuffled = PackedRows(rows.conversations, rows.rows, seq_len=self.seq_len, pad=rows.pad, order=order)
        batches = CounterBatchSampler(self.batch_size, start=self.next_sample, rank=rank, world=world)
        return self._build_loader(shuffled, batch_sampler=batches)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return this process's validation rows; no loader if there is no validation split."""
        return self._build_evaluation_loader("validation") if self._texts.has_split("validation") else []

    def test_dataloader(self) -> Loader:
        """Return this process's test rows."""
        return self._build_evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return this process's prompts in lists of at most `eval_batch_size`."""
        return Loader(batch_prompts(self._prompts, self.eval_batch_size, *self.rank_and_world))

    def _build_evaluation_loader(self, split: str) -> Loader:
        rank, world = self.rank_and_world
        rows = self._open(split)
        self._texts.forget()
        batches = batch_windows_once(len(rows), self.eval_batch_size, rank=rank, world=world)
        return self._build_loader(rows, batch_sampler=batches)

    def _open(self, split: str) -> PackedRows:
        """Return the rows of a split, packed at the first access."""
        if split not in self._rows:
            texts = self._texts.read(split)
            if not self.tokenizer.is_ready:
                self._train_tokenizer()
            cut = self.too_long if split == "train" else "truncate"
            found = encode_conversations(texts, self.tokenizer, self.seq_len + 1, cut)
            self._report(split, len(texts), found)
            rows = pack(found.lengths, self.seq_len + 1)
            self._rows[split] = PackedRows(found, rows, seq_len=self.seq_len, pad=self.tokenizer.pad or 0)
        return self._rows[split]

    def _train_tokenizer(self) -> None:
        spans = [span.text for spans in self._texts.read("train") for span in spans]

        def read() -> Iterator[str]:
            return with_progress(spans, f"training the tokenizer on {self.describe()}", sum(map(len, spans)))

        self.tokenizer.train(read)
        report_unused(self.tokenizer, self.describe())

    def _report(self, split: str, count: int, found: EncodedConversations) -> None:
        """Report the conversations that do not fit into a row; ValueError if nothing is left."""
        most = f"more than {self.seq_len + 1} tokens, with which a row of --data.seq_len {self.seq_len} is full"
        if found.dropped == count:
            raise ValueError(
                f"{self.describe()}: all {count} {split} conversations have {most}, so nothing is left; set a larger "
                "--data.seq_len"
                + (" or --data.too_long truncate" if split == "train" and self.too_long == "drop" else "")
            )
        if found.too_long:
            kept = found.too_long - found.dropped
            done = [f"{kept:,} are cut" if kept else "", f"{found.dropped:,} dropped" if found.dropped else ""]
            reason = f" (--data.too_long {self.too_long})" if split == "train" else ""
            rank_zero_info(
                f"{self.describe()}: {found.too_long:,} of {count:,} {split} conversations have {most}; "
                f"{' and '.join(filter(None, done))}{reason}"
            )
        if split == "train" and (changes := self.tokenizer.describe_changes()):
            rank_zero_info(
                f"--data.tokenizer {type(self.tokenizer).__name__} changes texts: {changes}; bits_per_byte counts all "
                "bytes of the source nevertheless"
            )
