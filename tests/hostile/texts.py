"""Texts, JSON lines and pairs with unexpected content."""

from collections.abc import Iterator, Sequence

from hostile.case import Case, Content

LINE = b'{"text": "a text"}\n'
FIT = ("fit", "-c", "tiny.yaml", "--data.path")
PAIRS = ("fit", "-c", "pairs.yaml", "--data.path")
GENERATE = ("generate", "runs/tiny", "--max_new_tokens", "2", "--prompts")
PREDICT = ("predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--output", "out.jsonl")


def cases() -> Iterator[Case]:
    """Yield all cases of texts."""
    for number, (name, content, says) in enumerate(_json_lines()):
        # Training opens a corpus in one place, which takes a while; prompts are read in one place too.
        by_fit = number % 4 == 0 or "give text" in says[-1]
        yield Case(
            name=f"text: JSON lines, {name}",
            command=[*FIT, "in.jsonl", "--data.field", "text"] if by_fit else [*GENERATE, "in.jsonl"],
            says=["in.jsonl", *(says if by_fit else (each.replace("'text'", "'prompt'") for each in says))],
            files={"in.jsonl": content if by_fit else content.replace(b'"text"', b'"prompt"')},
        )
    for name, content, says in _prompt_lines():
        yield Case(
            name=f"text: prompts of JSON lines, {name}",
            command=[*GENERATE, "in.jsonl"],
            says=["--prompts in.jsonl", *says],
            files={"in.jsonl": content},
        )
    for name, file, content, says in _prompts():
        yield Case(name=f"text: prompts, {name}", command=[*GENERATE, file], says=says, files={file: content})
    yield Case(name="text: prompts from a pipe, nothing", command=[*GENERATE, "-"], says=["--prompts -", "is empty"])
    yield Case(
        name="text: prompts from a pipe, no UTF-8",
        command=[*GENERATE, "-"],
        says=["--prompts -: line 2", "byte 1 of the line is not UTF-8"],
        stdin=b"a\nb\xff\n",
    )
    for name, file, content, says in _predicted():
        yield Case(
            name=f"text: prompts to predict, {name}",
            command=[*PREDICT, "--data.predict_prompts", file],
            says=["--data.predict_prompts", file, *says],
            files={file: content},
        )
    for name, files, more, says in _pairs():
        yield Case(name=f"text: pairs, {name}", command=[*PAIRS, *more], says=says, files=files)
    yield from _corpora()


def _json_lines() -> Iterator[tuple[str, bytes, Sequence[str]]]:
    yield "no JSON", LINE + b"a text\n", ["line 2", "is not JSON"]
    yield "truncated", LINE + b'{"text": "a te', ["line 2", "is not JSON"]
    yield "not a number", b'{"text": NaN}\n', ["line 1", "NaN, which is not JSON"]
    yield "infinity", b'{"text": -Infinity}\n', ["line 1", "-Infinity, which is not JSON"]
    yield "not a number elsewhere", LINE + b'{"text": "a", "score": NaN}\n', ["line 2", "NaN, which is not JSON"]
    yield "a huge whole number", b'{"text": "a", "id": ' + b"9" * 5000 + b"}\n", ["line 1", "is not JSON"]
    yield "deep brackets", b"[" * 100_000 + b"]" * 100_000 + b"\n", ["line 1", "is not JSON"]
    yield "deep objects", b'{"text":' * 50_000 + b"1" + b"}" * 50_000 + b"\n", ["line 1", "is not JSON"]
    yield "the field twice", b'{"text": "a", "text": "b"}\n', ["line 1", "the field 'text' twice"]
    yield "a list", b'["text", "a"]\n', ["line 1", "is a list, but"]
    yield "a string", b'"text"\n', ["line 1", "is a string, but"]
    yield "a number", b"7\n", ["line 1", "is a number, but"]
    yield "null", b"null\n", ["line 1", "is null, but"]
    yield "null as text", b'{"text": null}\n', ["line 1", "'text' is null, not a string"]
    yield "a list as text", b'{"text": ["a"]}\n', ["line 1", "'text' is a list, not a string"]
    yield "an object as text", b'{"text": {"a": 1}}\n', ["line 1", "'text' is an object, not a string"]
    yield "no such field", LINE + b'{"txt": "a"}\n', ["line 2", "has no field 'text' but"]
    yield "an empty object", b"{}\n", ["line 1", "has no field 'text' but none at all"]
    yield "half a character", b'{"text": "\\ud800"}\n', ["line 1", "half a character (a lone surrogate)"]
    yield "no UTF-8", LINE + b'{"text": "\xff"}\n', ["line 2", "of the line is not UTF-8"]
    yield "UTF-16", '{"text": "a"}\n'.encode("utf-16"), ["line 1", "is not UTF-8"]
    yield "a NUL", b'{"text": "a\0b"}\n', ["line 1", "is not JSON"]
    yield "a mark in the middle", LINE + b"\xef\xbb\xbf" + LINE, ["line 2", "is not JSON"]
    yield "carriage returns alone", (LINE * 3).replace(b"\n", b"\r"), ["line 1", "is not JSON"]
    yield "two objects on a line", b'{"text": "a"} {"text": "b"}\n', ["line 1", "is not JSON"]
    yield "a comma at the end", b'{"text": "a",}\n', ["line 1", "is not JSON"]
    yield "single quotes", b"{'text': 'a'}\n", ["line 1", "is not JSON"]
    yield "one array of all", b'[\n{"text": "a"},\n{"text": "b"}\n]\n', ["line 1", "is not JSON"]
    yield "nothing", b"", ["is empty; give text"]
    yield "blank lines", b"\n\n  \n", ["is empty; give text"]
    yield "empty texts", b'{"text": ""}\n' * 5, ["is empty; give text"]
    yield "a line of megabytes that is cut", b'{"text": "' + b"a" * (8 << 20), ["line 1", "is not JSON"]


def _prompt_lines() -> Iterator[tuple[str, Content, Sequence[str]]]:
    yield "no JSON", b"a prompt\n", ["line 1 is not JSON"]
    yield "another field", b'{"text": "a"}\n', ["line 1 has no field 'prompt' but 'text'"]
    yield "a number", b'{"prompt": 7}\n', ["line 1", "'prompt' is a number, not a string"]
    yield "the field twice", b'{"prompt": "a", "prompt": "b"}\n', ["line 1", "the field 'prompt' twice"]
    yield "not a number", b'{"prompt": "a", "t": NaN}\n', ["line 1", "NaN, which is not JSON"]
    yield "half a character", b'{"prompt": "\\udfff"}\n', ["line 1", "half a character"]
    yield "a list", b"[]\n", ["line 1 is a list, but"]
    yield "blank lines", b"\n\n", ["is empty; write one prompt per line"]
    yield "deep brackets", b'{"prompt": ' + b"[" * 50_000, ["line 1 is not JSON"]
    yield "a huge number", b'{"prompt": "a", "n": ' + b"1" * 10_000 + b"}", ["line 1 is not JSON"]


def _prompts() -> Iterator[tuple[str, str, Content, Sequence[str]]]:
    yield "nothing", "in.txt", b"", ["in.txt", "is empty"]
    yield "a mark and nothing", "in.txt", b"\xef\xbb\xbf", ["in.txt", "is empty"]
    yield "no UTF-8", "in.txt", b"a\n\xc3(\n", ["in.txt: line 2", "is not UTF-8"]
    yield "UTF-16", "in.txt", "ab\n".encode("utf-16"), ["in.txt: line 1", "is not UTF-8"]
    yield "binary", "in.txt", bytes(range(256)), ["in.txt: line 2", "is not UTF-8"]
    yield "an empty line", "in.txt", b"a\n\nb\n", ["prompt 2 is empty"]


def _predicted() -> Iterator[tuple[str, str, Content, Sequence[str]]]:
    yield "nothing", "in.txt", b"", ["the file is empty"]
    yield "no UTF-8", "in.txt", b"a\n\xff\n", ["line 2", "is not UTF-8"]
    yield "an empty line", "in.txt", b"a\n\n", ["line 2 is empty"]
    yield "no JSON", "in.jsonl", b"a\n", ["line 1 is not JSON"]
    yield "a number", "in.jsonl", b'{"prompt": 1}\n', ["line 1", "'prompt' is a number"]


def _pairs() -> Iterator[tuple[str, dict[str, Content], Sequence[str], Sequence[str]]]:
    alone = ["--data.target_path", "null"]
    for name, content, says in (
        ("one column", b"a\tb\nc\n", ["line 2 has 1 column, not 2"]),
        ("three columns", b"a\tb\tc\n", ["line 1 has 3 columns, not 2"]),
        ("an empty line", b"a\tb\n\nc\td\n", ["line 2 has 1 column"]),
        ("carriage returns alone", b"a\tb\rc\td\r", ["line 1 has 3 columns"]),
        ("no UTF-8", b"a\tb\nc\t\xff\n", ["line 2: byte 2 of the line is not UTF-8"]),
        ("nothing", b"", ["is empty; give pairs"]),
        ("sides without text", b" \t\n" * 40, ["every pair has a blank side"]),
        ("one pair", b"a\tb\n", ["which leaves none to train on"]),
    ):
        yield f"columns, {name}", {"in.tsv": content}, ["in.tsv", *alone], ["in.tsv", *says]
    fields = [*alone, "--data.fields", "[en, de]"]
    good = b'{"en": "a", "de": "b"}\n'
    for name, content, says in (
        ("no JSON", good + b"a\tb\n", ["line 2 is not JSON"]),
        ("a field is missing", good + b'{"en": "a"}\n', ["line 2 has no field 'de' but 'en'"]),
        ("a field twice", b'{"en": "a", "de": "b", "de": "c"}\n', ["line 1", "the field 'de' twice"]),
        ("a list of pairs", b'[["a", "b"]]\n', ["line 1 is a list"]),
        ("not a number", b'{"en": NaN, "de": "b"}\n', ["line 1", "NaN, which is not JSON"]),
        ("half a character", b'{"en": "\\udc80", "de": "b"}\n', ["line 1", "half a character"]),
        ("nothing", b"\n\n", ["is empty; give pairs"]),
    ):
        yield f"JSON lines, {name}", {"in.jsonl": content}, ["in.jsonl", *fields], ["in.jsonl", *says]
    yield "no fields", {"in.jsonl": good}, ["in.jsonl", *alone], ["in.jsonl", "name the fields of source and target"]
    yield "one field", {"in.jsonl": good}, ["in.jsonl", *alone, "--data.fields", "[en]"], ["--data.fields"]
    yield (
        "one field twice",
        {"in.jsonl": good},
        ["in.jsonl", *alone, "--data.fields", "[en, en]"],
        ["--data.fields", "two"],
    )
    lines = {"short.de": b"a\nb\n"}
    yield "fewer targets", lines, ["pairs.en", "--data.target_path", "short.de"], ["60 lines, but short.de has 2"]
    yield "binary", {"in.en": bytes(range(256))}, ["in.en"], ["in.en", "is not UTF-8"]
    yield "no targets", {}, ["pairs.en", *alone], ["--data.path pairs.en", "holds one side of the pairs"]
    yield "nothing", {"in.en": b"", "in.de": b""}, ["in.en", "--data.target_path", "in.de"], ["in.en is empty"]
    one = "a " * 300 + "\n"
    files: dict[str, Content] = {"in.en": one * 60, "in.de": one * 60}
    yield (
        "too long",
        files,
        ["in.en", "--data.target_path", "in.de"],
        ["training pairs of", "a larger --data.max_length"],
    )


def _corpora() -> Iterator[Case]:
    for name, files, more, says in (
        ("nothing", {"in.txt": b""}, ["in.txt"], ["in.txt", "is empty; give text"]),
        ("too short", {"in.txt": b"short"}, ["in.txt"], ["in.txt", "--data.seq_len 8 needs at least 9 tokens"]),
        ("a folder of nothing", {"in/a": b"", "in/b": b""}, ["in"], ["in", "all 2 files are empty"]),
        ("validation of nothing", {"in.txt": b""}, ["corpus.txt", "--data.validation", "in.txt"], ["in.txt", "empty"]),
        ("validation is all", {}, ["corpus.txt", "--data.validation", "corpus.txt"], ["names no files besides"]),
        ("JSON lines of no field", {"in.jsonl": LINE}, ["in.jsonl"], ["in.jsonl", "is JSON lines; name the field"]),
        ("a text as JSON lines", {}, ["corpus.txt", "--data.field", "text"], ["corpus.txt, line 1 is not JSON"]),
        ("no share to train on", {}, ["corpus.txt", "--data.test", "0.99"], ["data.test", "0.99"]),
        ("a fraction below zero", {}, ["corpus.txt", "--data.validation", "-0.1"], ["data.validation", "-0.1"]),
        ("a fraction that is not a number", {}, ["corpus.txt", "--data.test", ".nan"], ["data.test", "nan"]),
    ):  # fmt: skip
        yield Case(name=f"text: corpus, {name}", command=[*FIT, *more], says=says, files=files)
