"""The tokens of a corpus: its text, its tokenizer, and what the second makes of the first."""

import hashlib
from collections.abc import Callable

from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.tokenization import TextTokenization
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import SEPARATOR, Bytes
from lightning_xt.data.tokenizers.unused_ids import report_unused


class CorpusTokens:
    """The tokens of a corpus, prepared when they are first asked for.

    Args:
        tokenizer: the tokenizer; one that learns does so on the training split.
        prepare: prepares the text on disk, as bytes.
        describe: names the corpus in messages.
    """

    def __init__(self, tokenizer: Tokenizer, prepare: Callable[[], Splits], describe: Callable[[], str]) -> None:
        self._prepare, self._describe = prepare, describe
        self._separator_byte: int | None = None
        self._text: Splits | None = None
        self._splits: Splits | None = None
        self._hash: str | None = None
        self.tokenizer: Tokenizer
        self._learns: bool
        """True if the tokenizer learns from this text."""
        self._use(tokenizer.for_text(separated=False))

    @property
    def are_bytes(self) -> bool:
        """True if the tokens are the bytes of the text."""
        return isinstance(self.tokenizer, Bytes)

    @property
    def separator(self) -> int | None:
        """The id that opens each document; None if documents are not separated."""
        return None if self._separator_byte is None else self.tokenizer.start

    @property
    def text(self) -> Splits:
        """The bytes of each split: of whole characters unless they are the tokens."""
        if self._text is None:
            found = self._prepare()
            self._text = found if self.are_bytes else found.at_characters()
        return self._text

    @property
    def splits(self) -> Splits:
        """The tokens of each split."""
        if self._splits is None:
            self._splits = self.text if self.are_bytes else self._tokenize()
        return self._splits

    @property
    def hash(self) -> str:
        """SHA-256 of the text's splits and of the tokenizer, unless it is bytes."""
        if self._hash is None:
            found = self.text.hash
            own = found if self.are_bytes else hashlib.sha256(f"{found} {self._options}".encode()).hexdigest()
            self._hash = own
        return self._hash

    def bytes_per_token(self, split: str) -> float:
        """Return the mean bytes of a token of an existing split."""
        return 1.0 if self.are_bytes else len(getattr(self.text, split)) / len(getattr(self.splits, split))

    def separate_documents(self) -> None:
        """Let an id open each document, where the text has a separator."""
        self._separator_byte = SEPARATOR
        self._use(self.tokenizer.for_text(separated=True))

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Use a learned tokenizer, such as that of a checkpoint, in place of one that learns here."""
        if self._learns and tokenizer.trained_state != self.tokenizer.trained_state:
            self.tokenizer = tokenizer.for_text(separated=self._separator_byte is not None)
            self._splits = None

    def _use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._learns = not tokenizer.is_ready
        # Those before it learns: processes compare hashes of the data before that.
        self._options = f"{type(tokenizer).__name__} {sorted(tokenizer.init_args.items())}"
        self._splits = self._hash = None

    def _tokenize(self) -> Splits:
        tokenization = TextTokenization(self.tokenizer, self._separator_byte, self._describe())
        if changes := self.tokenizer.describe_changes():
            rank_zero_info(
                f"--data.tokenizer {type(self.tokenizer).__name__} changes texts: {changes}; bits_per_byte counts all "
                "bytes of the source nevertheless"
            )
        train, *others = self.text
        if self._learns:
            tokenization.learn(train)
            report_unused(self.tokenizer, self._describe())
        encoded = [None if part is None else tokenization.encode(part) for part in others]
        return Splits(tokenization.encode(train), *encoded)
