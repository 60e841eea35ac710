"""Configs that are not YAML, or hold values that are not allowed."""

from collections.abc import Iterator, Sequence

from hostile.case import Case, Content
from tiny_run import TINY

OTHER = "mine.yaml"
"""Names of the files that a case writes."""


def cases() -> Iterator[Case]:
    """Yield all cases of configs."""
    for name, content, says in [*_no_yaml(), *_no_options()]:
        yield Case(name=f"config: {name}", command=["fit", "-c", OTHER], says=[OTHER, *says], files={OTHER: content})
    for name, content, says in _values():
        yield Case(name=f"config: {name}", command=["fit", "-c", OTHER], says=says, files={OTHER: content})
    for name, content, says in (
        ("no YAML", "max_new_tokens: [", ["is not YAML"]),
        ("a list", "- 1\n", ["is not a config"]),
        (
            "an unknown option",
            "max_new_token: 3\n",
            ["unknown option '--max_new_token'; did you mean --max_new_tokens?"],
        ),
        ("a text for a number", "max_new_tokens: three\n", ["--max_new_tokens", "'three'"]),
        ("a key twice", "max_new_tokens: 3\nmax_new_tokens: 4\n", ["the key 'max_new_tokens' stands twice"]),
    ):
        yield Case(
            name=f"config: of generate, {name}",
            command=["generate", "runs/tiny", "--prompt", "a", "-c", OTHER],
            says=says,
            files={OTHER: content},
        )
    yield Case(
        name="config: of the trainer in a separate file, a bomb",
        command=["fit", "-c", "tiny.yaml", "--trainer", OTHER],
        says=[OTHER],
        files={OTHER: _make_bomb("max_steps")},
    )
    yield Case(
        name="config: a bomb that a config names",
        command=["fit", "-c", "tiny.yaml", "-c", OTHER],
        says=["the value 'a0: &a0 {x: 1}", "more than"],
        files={OTHER: "trainer: bomb.yaml\n", "bomb.yaml": _make_bomb("max_steps")},
    )
    yield Case(
        name="config: a bomb on the command line",
        command=["fit", "-c", "tiny.yaml", "--trainer", _make_bomb("max_steps")],
        says=["the value 'a0: &a0 {x: 1}", "more than"],
    )
    yield Case(
        name="config: a good one and a bad one",
        command=["fit", "-c", "tiny.yaml", "-c", OTHER],
        says=[OTHER, "is not YAML"],
        files={OTHER: "trainer: {"},
    )


def _no_yaml() -> Iterator[tuple[str, Content, Sequence[str]]]:
    yield "an open brace", "trainer: {max_steps: 3\n", ["is not YAML"]
    yield "an open quote", 'name: "a\n', ["is not YAML"]
    yield "a tab", "trainer:\n\tmax_steps: 3\n", ["is not YAML", "line 2"]
    yield "a wrong indent", "trainer:\n    max_steps: 3\n  devices: 1\n", ["is not YAML"]
    yield "two colons", "a: b: c\n", ["is not YAML"]
    yield "an unknown anchor", "name: *nothing\n", ["is not YAML", "undefined alias"]
    yield "two documents", "name: a\n---\nname: b\n", ["is not YAML"]
    yield "a control character", "name: a\x07b\n", ["is not YAML"]
    yield "a NUL", "name: a\0b\n", ["is not YAML"]
    yield "an escaped NUL", 'name: "a\\0b"\n', ["the character NUL"]
    yield "no UTF-8", b"name: \xff\xfe\n", ["is not UTF-8"]
    yield "UTF-16", "name: a\n".encode("utf-16"), ["is not UTF-8"]
    yield "binary", bytes(range(256)) * 20, ["is not UTF-8"]
    yield "a picture", b"\x89PNG\r\n\x1a\n" + bytes(200), ["is not UTF-8"]
    yield "a web page", "<!DOCTYPE html><html><body>404: Not Found</body></html>\n", ["is not"]
    yield (
        "a Python object",
        "name: !!python/object/apply:os.system ['touch hacked']\n",
        ["is not YAML", "python/object"],
    )
    yield "a Python name", "name: !!python/name:os.system\n", ["is not YAML", "python/name"]
    yield "a Python module", "name: !!python/module:os\n", ["is not YAML", "python/module"]
    yield "a new Python object", "a: !!python/object/new:subprocess.Popen [[touch, hacked]]\n", ["is not YAML"]
    yield "an unknown tag", "name: !mine a\n", ["is not YAML"]
    yield "a broken binary", "name: !!binary 'a'\n", ["is not YAML"]
    yield "a key twice", "name: a\nname: b\n", ["the key 'name' stands twice", "line 2"]
    yield "a key twice, deep", "trainer: {max_steps: 1, max_steps: 2}\n", ["the key 'max_steps' stands twice"]
    yield "a list as key", "? [a, b]\n: c\n", ["is not YAML"]
    yield "a mapping as key", "? {a: b}\n: c\n", ["is not YAML"]
    yield "a bomb of anchors", _make_bomb("model"), ["more than"]
    yield "a bomb of anchors in lists", _make_bomb_of_lists(), ["more than"]
    yield "an anchor within itself", "model: &a {init_args: *a}\n", ["itself"]
    yield "a list within itself", "trainer: {callbacks: &a [*a]}\n", ["itself"]
    yield "deep brackets", "name: " + "[" * 5000 + "]" * 5000 + "\n", ["too deep"]
    yield "deep indents", "".join(" " * n + "a:\n" for n in range(2000)), ["too deep"]
    yield "a huge file", "# comment\n" * 900_000 + "name: a\n", ["bytes"]
    yield "a huge line", "name: " + "a" * (9 << 20) + "\n", ["bytes"]


def _no_options() -> Iterator[tuple[str, Content, Sequence[str]]]:
    yield "a list", "- a\n- b\n", ["is not a config: it holds a list"]
    yield "a text", "fit\n", ["is not a config: it holds a str"]
    yield "a number", "7\n", ["is not a config: it holds a int"]
    yield "a set", "!!set {a, b}\n", ["is not a config: it holds a set"]
    yield "numbers as keys", "1: a\n2: b\n", ["key"]
    yield "null as key", "null: a\n", ["key"]
    yield "a truth as key", "yes: a\n", ["key"]


def _values() -> Iterator[tuple[str, Content, Sequence[str]]]:
    def tiny(before: str, after: str) -> str:
        if before not in TINY:
            raise ValueError(before)
        return TINY.replace(before, after, 1)

    yield "nothing", "", [OTHER, "it is empty"]
    yield "comments alone", "# nothing\n", [OTHER, "it is empty"]
    yield "null", "null\n", [OTHER, "it is empty"]
    yield "an empty mapping", "{}\n", [OTHER, "it is empty"]
    yield "no data", "trainer: {max_steps: 1}\n", ["there is no data"]
    yield "an unknown section", tiny("model:", "modle:"), ["'--modle'; did you mean --model"]
    yield "an unknown option", tiny("max_steps", "max_stepz"), ["max_stepz", "did you mean --trainer.max_steps"]
    yield "an unknown part", tiny("depth: 1", "deepth: 1"), ["'deepth'; did you mean depth?"]
    yield "another letter", tiny("TextFiles", "TextFlies"), ["'TextFlies'; did you mean TextFiles?"]
    yield "a list for a number", tiny("dim: 8", "dim: [8, 9]"), ["--model.decoder.dim", "[8, 9]"]
    yield "a mapping for a number", tiny("dim: 8", "dim: {a: 1}"), ["--model.decoder.dim"]
    yield "null for a number", tiny("dim: 8", "dim: null"), ["--model.decoder.dim is null"]
    yield "a truth for a number", tiny("dim: 8", "dim: true"), ["--model.decoder.dim", "True"]
    yield "a text for a number", tiny("dim: 8", "dim: eight"), ["--model.decoder.dim", "'eight'"]
    yield "a fraction for a number", tiny("dim: 8", "dim: 8.5"), ["--model.decoder.dim", "8.5"]
    yield "a number for a class", tiny("heads: 2", "heads: 2, position: 7"), ["--model.decoder.attention.position"]
    yield "a list for a class", tiny("heads: 2", "heads: 2, position: [a]"), ["--model.decoder.attention.position"]
    yield (
        "a number for a mapping",
        tiny("schedule: {init_args: {warmup_steps: 2}}", "schedule: 3"),
        ["--model.schedule"],
    )
    yield "a list for a mapping", TINY.partition("trainer:")[0] + "trainer: [1, 2]\n", ["--trainer"]
    yield "a mapping for a list", tiny("prompts: [a]", "prompts: {a: b}"), ["--sample_text.prompts"]
    yield "a number in a list of texts", tiny("prompts: [a]", "prompts: [1, [2]]"), ["--sample_text.prompts"]
    for option, before in (("dim", "dim: 8"), ("depth", "depth: 1"), ("heads", "heads: 2")):
        for value in (0, -1):
            yield f"{option} of {value}", tiny(before, f"{option}: {value}"), [option, str(value)]
        yield f"{option} of 1e400", tiny(before, f"{option}: 1e400"), [option]
        yield f"{option} of .nan", tiny(before, f"{option}: .nan"), [option, "nan"]
    yield "a huge dim", tiny("dim: 8", "dim: 1000000000000000000000"), ["dim"]
    yield "an enormous dim", tiny("dim: 8", f"dim: 1{'0' * 400}"), ["dim"]
    yield "a dropout above one", tiny("dropout: 0.2", "dropout: 1.5"), ["dropout", "1.5"]
    yield "a dropout below zero", tiny("dropout: 0.2", "dropout: -0.1"), ["dropout", "-0.1"]
    yield "a dropout that is not a number", tiny("dropout: 0.2", "dropout: .nan"), ["dropout", "nan"]
    yield "a length of nothing", tiny("seq_len: 8", "seq_len: 0"), ["seq_len", "0"]
    yield "a batch of nothing", tiny("batch_size: 2", "batch_size: 0"), ["batch_size", "0"]
    yield "a batch below zero", tiny("eval_batch_size: 4", "eval_batch_size: -4"), ["eval_batch_size", "-4"]
    rate = "optimizer: {class_path: AdamW, init_args: {lr: %s}}\n    schedule:"
    for value in ("-0.1", ".nan", ".inf", "1e400"):
        yield f"a rate of {value}", tiny("schedule:", rate % value), ["optimizer: AdamW cannot be built"]
    yield "a rate that is a text", tiny("schedule:", rate % "fast"), ["lr", "'fast'"]
    yield "a warmup below zero", tiny("warmup_steps: 2", "warmup_steps: -2"), ["warmup_steps", "-2"]
    yield "a warmup of a fraction", tiny("warmup_steps: 2", "warmup_steps: 2.5"), ["--model.schedule.warmup_steps"]
    yield "clipping below zero", tiny("clip_val: 1.0", "clip_val: -1.0"), ["gradient_clip_val", "-1.0"]
    yield "clipping by no number", tiny("clip_val: 1.0", "clip_val: .nan"), ["gradient_clip_val", "nan"]
    yield "no such device", tiny("accelerator: cpu", "accelerator: abacus"), ["trainer", "abacus"]
    yield "devices of a text", tiny("devices: 1", "devices: many"), ["trainer", "many"]
    yield "devices below zero", tiny("devices: 1", "devices: -3"), ["trainer", "-3"]
    yield "no devices", tiny("devices: 1", "devices: 0"), ["trainer", "0"]
    yield "no such precision", tiny("devices: 1", "devices: 1, precision: 17"), ["trainer", "17"]
    yield "no such strategy", tiny("devices: 1", "devices: 1, strategy: hope"), ["trainer", "hope"]
    yield "no such profiler", tiny("devices: 1", "devices: 1, profiler: hope"), ["trainer", "profiler"]
    yield "steps of nothing", tiny("max_steps: 6", "max_steps: -5"), ["max_steps", "-5"]
    yield "logs at no step", tiny("log_every_n_steps: 1", "log_every_n_steps: -1"), ["log_every_n_steps", "-1"]
    yield "accumulation of nothing", tiny("devices: 1", "devices: 1, accumulate_grad_batches: 0"), ["accumulate"]
    yield "a validation at no step", tiny("validate_every: 4", "validate_every: 0"), ["--validate_every is 0"]
    yield "a checkpoint at no step", tiny("checkpoint_every: 4", "checkpoint_every: -1"), ["--checkpoint_every is -1"]
    yield "a seed below zero", TINY + "seed_everything: -1\n", ["seed", "-1"]
    yield "a seed too large", TINY + f"seed_everything: {2**40}\n", ["seed", str(2**40)]
    yield "a seed of the data below zero", tiny("seq_len: 8", "seq_len: 8, seed: -1"), ["--data.seed", "-1"]
    yield "no workers at all", tiny("seq_len: 8", "seq_len: 8, num_workers: -1"), ["num_workers", "-1"]
    yield (
        "a temperature below zero",
        tiny("sampling: {max_new_tokens: 4}", "sampling: {temperature: -1}"),
        ["temperature", "-1"],
    )
    yield (
        "a temperature that is not a number",
        tiny("sampling: {max_new_tokens: 4}", "sampling: {temperature: .nan}"),
        ["nan"],
    )
    yield "a fraction above one", tiny("sampling: {max_new_tokens: 4}", "sampling: {top_p: 1.5}"), ["top_p", "1.5"]


def _make_bomb(name: str) -> str:
    """Return nine mappings, each with nine times the one before: 9 ** 9 leaves in a kilobyte."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}" for n in range(1, 10)]
    return "\n".join([*lines, f"{name}: *a9", ""])


def _make_bomb_of_lists() -> str:
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join([*lines, "trainer: {callbacks: *a9}", ""])
