"""Tokenizers of the kinds that others publish, tiny."""

import io
import json
from collections.abc import Callable, Iterable
from functools import cache

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "the cat sat on the mat",
    " the dog's mat, isn't it?",
    "\u00fcber den H\u00fcgeln \u65e5\u672c",
    "def f(x):\n  x\n",
] * 9
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def make_gpt2() -> Tokenizer:
    """Make a byte-level BPE whose only special token is the last id."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(["<|endoftext|>"])
    return made


def make_llama3() -> Tokenizer:
    """Make a byte-level BPE that takes a whole word from its vocabulary, a special token among them; with a gap."""
    described = json.loads(make_gpt2().to_str())
    described["added_tokens"] = []
    described["model"] |= {"ignore_merges": True, "vocab": described["model"]["vocab"] | {"<|end_of_text|>": 295}}
    split = {"type": "Split", "pattern": {"Regex": r"\s+|\S+"}, "behavior": "Isolated", "invert": False}
    steps = [split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    made = Tokenizer.from_str(json.dumps(described))
    made.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"])
    return made


def make_llama2() -> Tokenizer:
    """Make a BPE of characters, with bytes for those that it does not know."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special + BYTES, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    described = json.loads(made.to_str())
    return Tokenizer.from_str(json.dumps({**described, "added_tokens": described["added_tokens"][:3]}))


def make_t5() -> Tokenizer:
    """Make a Unigram model, which may take the spelling of a special token for it."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator([*TEXTS, "</s>"], trainer)
    return made


def make_bert() -> Tokenizer:
    """Make a WordPiece model, which lowercases."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=80, special_tokens=special, show_progress=False)
    )
    return made


def make_gpt1() -> Tokenizer:
    """Make a BPE that marks the ends of words."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder("</w>")
    special = ["<unk>", "<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=80, end_of_word_suffix="</w>", special_tokens=special, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    return made


def make_words() -> Tokenizer:
    """Make a list of words, without a decoder."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>", "<eos>"], show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    return made


MADE: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": make_gpt2,
    "llama3": make_llama3,
    "llama2": make_llama2,
    "t5": make_t5,
    "bert": make_bert,
    "gpt1": make_gpt1,
    "words": make_words,
}


@cache
def library(kind: str) -> Tokenizer:
    """Return a tokenizer that takes the spelling of special tokens for text, as the library allows."""
    made = MADE[kind]()
    made.encode_special_tokens = True
    return made


@cache
def content(kind: str) -> str:
    """Return the content of a tokenizer.json."""
    return str(library(kind).to_str())


@cache
def sentence_piece(kind: str) -> bytes:
    """Return a model of SentencePiece: one that keeps all text, or its default, with a padding id."""
    options = {
        "bpe": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 330, "normalization_rule_name": "identity",
                "remove_extra_whitespaces": False},
        "unigram": {"vocab_size": 50, "pad_id": 3, "user_defined_symbols": ["<sep>"], "control_symbols": ["<mask>"]},
    }[kind]  # fmt: skip
    file = io.BytesIO()
    texts: Iterable[str] = iter(TEXTS)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=file, minloglevel=2, num_threads=1, hard_vocab_limit=False, **options
    )
    return file.getvalue()
