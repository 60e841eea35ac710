"""Training of a tokenizer on files."""

import random
import shlex
from collections.abc import Iterator

from lightning_xt.commands.options.output_files import check_output, write_output
from lightning_xt.data.files.archives import PACKED
from lightning_xt.data.files.file_digests import require_unchanged, stat_files
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.documents import read_documents, require_text
from lightning_xt.data.text.pieces import LEARNED_PIECE, cut_pieces
from lightning_xt.data.tokenizers.bpe import BPE, SMALLEST
from lightning_xt.system.files import expand_home
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError

OUTPUT = "tokenizer: --output"
SAMPLED = 64
"""Pieces of the text, drawn at random, on which the bytes of a token are measured."""


def train_tokenizer(path: str, vocab_size: int, field: str | None, output: str, *, as_json: bool) -> int:
    """Train a byte-level BPE, write its file and print what it is; return the exit code.

    Raises:
        UserError: the files, the options or the place of the output cannot be used.
    """
    file = expand_home(output, f"{OUTPUT} {output}")
    check_output(OUTPUT, file)
    try:
        tokenizer = BPE(vocab_size)
        text = _Text(path, field)
        tokenizer.train(text.read)
    except (ValueError, FileNotFoundError) as error:
        # The options of fit that the readers name are those of this command.
        sentence = str(error).replace("--data.tokenizer.", "--").replace("--data.", "--")
        raise UserError(f"tokenizer: {sentence}") from error
    if not text.size:
        raise UserError(f"tokenizer: --path {path} has no text to train on; give some")
    content = str(tokenizer.trained_state)
    with write_output(OUTPUT, file) as opened:
        opened.write(content.encode("utf-8"))
    _print_result(tokenizer, text, str(file), as_json=as_json)
    return 0


class _Text:
    """The text of files in pieces, and a sample of it.

    Args:
        path: value of the option that names the files.
        field: field of the text in JSON lines; None for plain text.
    """

    def __init__(self, path: str, field: str | None) -> None:
        self.path, self.field = path, field
        self.files = find_files("--path", path)
        for file in self.files:
            require_text(file, field)
        self.size = 0
        """Bytes read."""
        self.sample: list[str] = []

    def read(self) -> Iterator[str]:
        """Yield the pieces of all documents, with a progress bar."""
        draw, before = random.Random(0), stat_files(self.files)
        packed = self.field is not None or any(file.suffix.lower() in PACKED for file in self.files)
        total = None if packed else sum(size for size, *_ in before)
        for count, content in enumerate(with_progress(self._cut(), f"reading {self.path}", total)):
            self.size += len(content)
            text = content.decode("utf-8", errors="replace")
            place = count if count < SAMPLED else draw.randrange(count + 1)
            if place < SAMPLED:
                self.sample[place : place + 1] = [text]
            yield text
        require_unchanged(self.files, before, f"--path {self.path}")

    def _cut(self) -> Iterator[bytes]:
        for file in self.files:
            for document in read_documents(file, self.field):
                pieces = cut_pieces(document, None, LEARNED_PIECE)
                yield from (piece.content for piece in pieces if piece.content)


def _print_result(tokenizer: BPE, text: _Text, output: str, *, as_json: bool) -> None:
    used = tokenizer.vocab_size - len(set(tokenizer.unused) - {tokenizer.pad, tokenizer.start})
    sample = sum(len(each.encode("utf-8")) for each in text.sample)
    per_token = sample / sum(map(len, tokenizer.encode_arrays(text.sample)))
    use = f"--data.tokenizer BPE --data.tokenizer.file {shlex.quote(output)}"
    if as_json:
        facts = {"tokenizer": output, "ids": used, "bytes_per_token": round(per_token, 4), "bytes": text.size}
        print(to_json({**facts, "use": use}))
        return
    if used < tokenizer.vocab_size:
        print(f"The text gives {used:,} ids, fewer than --vocab_size {tokenizer.vocab_size:,}.")
    parts = f"{used - SMALLEST:,} sub-words, 256 bytes, <pad>, <start> and <end>"
    print(f"{used:,} ids: {parts}; {text.size:,} bytes read.")
    data = f"--data TextFiles --data.path {shlex.quote(text.path)}"
    data += "" if text.field is None else f" --data.field {shlex.quote(text.field)}"
    print(f"Use it:  lightning-xt fit -c language/quickstart.yaml {data} \\\n             {use}")
    print(f"tokenizer={output}\nids={used}\nbytes_per_token={per_token:.6f}")
