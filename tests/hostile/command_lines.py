"""Commands and options that do not exist, or that contradict each other."""

from collections.abc import Iterator

from hostile.case import Case

LONG = "x" * 100_000


def cases() -> Iterator[Case]:
    """Yield all cases of command lines."""
    for number, (command, says) in enumerate(_rows()):
        yield Case(name=f"line: {number} {' '.join(command)[:60]!r}", command=command, says=says)


def _rows() -> Iterator[tuple[list[str], list[str]]]:
    fit = ["fit", "-c", "tiny.yaml"]
    generate = ["generate", "runs/tiny"]
    prompt = [*generate, "--prompt", "a"]
    for command in ("fti", "FIT ", "--fit", "-x", "", "fit\n", "трен", "\udcff", LONG, "help", "../fit"):
        yield [command], ["unknown command"]
    yield ["fit"], ["fit needs a config, such as -c language/quickstart.yaml"]
    yield ["fit", "--name", "mine"], ["there is no data: give -c language/quickstart.yaml"]
    yield ["fit", "-c"], ["--config needs a value"]
    yield [*fit, "--trainer.max_steps"], ["--trainer.max_steps needs a value"]
    yield [*fit, "--trainer.max_steps="], ["--trainer.max_steps"]
    yield [*fit, "--trainer.max_steps", "--trainer.devices", "1"], ["--trainer.max_steps needs a value"]
    yield [*fit, "--"], ["--"]
    yield [*fit, "stray"], ["'stray' stands where an option was expected"]
    yield [*fit, "-z"], ["-z"]
    yield [*fit, "--zzz", "1"], ["'--zzz'"]
    yield [*fit, f"--{LONG}", "1"], ["unknown option"]
    yield [*fit, "--model.decoder.", "1"], ["--model"]
    yield [*fit, "--.", "1"], ["unknown option"]
    yield [*fit, "--model..decoder", "1"], ["--model"]
    yield [*fit, "--трен", "1"], ["--трен"]
    yield [*fit, "--\udcff", "1"], ["is not UTF-8"]
    yield [*fit, "--name", "\udcff"], ["is not UTF-8"]
    for value in ("x", "1.5", "nan", "1e400", "[1]", "{a: 1}", "null", "", "1_000_000_000_000_000_000_000", LONG):
        yield [*fit, "--model.decoder.depth", value], ["depth"]
    yield [*fit, "--model.decoder.feedforward.hidden_dim", f"{10**12}"], ["there is not enough memory to begin"]
    yield [*fit, "--model.decoder.dim", "[" * 3000], ["--model.decoder.dim"]
    yield [*fit, "--model.decoder.dim", "{a: " * 3000], ["--model.decoder.dim"]
    yield [*fit, "--model.decoder.dim", "!!python/object/apply:os.system [id]"], ["--model.decoder.dim"]
    yield [*fit, "--model", "{class_path: LanguageModel, init_args: [1]}"], ["--model"]
    yield [*fit, "--model", "[" * 3000], ["--model"]
    yield [*fit, "--trainer", "[1]"], ["--trainer"]
    yield [*fit, "--trainer.callbacks", "7"], ["--trainer.callbacks"]
    yield [*fit, "--trainer.callbacks+", "Nope"], ["--trainer.callbacks", "'Nope'"]
    yield [*fit, "--trainer.logger", "Nope"], ["--trainer.logger"]
    yield [*fit, "--data", "Nope"], ["--data", "'Nope'"]
    yield [*fit, "--model", "Nope"], ["--model", "'Nope'"]
    yield [*fit, "--model.help", "Nope"], ["Nope"]
    yield [*fit, "--print_config=nope"], ["print_config"]
    yield [*fit, "--seed_everything", "x"], ["--seed_everything"]
    yield [*fit, "--ckpt_path", "a.ckpt", "--init_from", "b.ckpt"], ["--ckpt_path a.ckpt and --init_from b.ckpt both"]
    yield [*fit, "--init_from", "nowhere"], ["--init_from", "nowhere is not a run"]
    yield [*fit, "--init_from", "corpus.txt"], ["--init_from", "corpus.txt is not a run"]
    yield [*fit, "--validate_every", "-1"], ["--validate_every is -1"]
    yield [*fit, "--keep_checkpoints", "-1"], ["--keep_checkpoints is -1"]
    yield [*fit, "--trainer.max_epochs", "3"], ["--trainer.max_epochs is 3"]
    yield [*fit, "--trainer.max_time", "soon"], ["trainer: ", "soon"]
    yield [*fit, "--trainer.limit_train_batches", "-1"], ["limit_train_batches"]
    yield [*fit, "--data.seq_len", "0"], ["--data.seq_len", "0"]
    yield [*fit, "--data.stride", "99"], ["--data.stride", "99"]
    yield ["validate", "-c", "tiny.yaml"], ["validate needs weights"]
    yield ["validate", "--ckpt_path", "nowhere"], ["--ckpt_path", "nowhere is not a run"]
    yield ["test", "-c", "tiny.yaml", "--ckpt_path", "first"], ["--ckpt_path", "first"]
    yield ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"], ["--output"]
    yield [*generate, "--max_new_tokens"], ["--max_new_tokens needs a value"]
    for option, value in (
        ("--max_new_tokens", "0"), ("--max_new_tokens", "-5"), ("--max_new_tokens", "x"),
        ("--max_new_tokens", "1e400"), ("--max_new_tokens", ""),
        ("--temperature", "-1"), ("--temperature", "nan"), ("--temperature", "inf"), ("--temperature", "hot"),
        ("--top_k", "0"), ("--top_k", "-1"), ("--top_p", "0"), ("--top_p", "2"), ("--top_p", "nan"),
        ("--min_p", "-1"), ("--min_p", "nan"), ("--batch", "0"), ("--seed", "x"), ("--seed", "1.5"),
        ("--num_return_sequences", "0"), ("--window", "0"), ("--color", "maybe"), ("--weights", "int3"),
        ("--method", "Nope"), ("--filters+", "Nope"), ("--draft", "nowhere"), ("--amateur", "nowhere"),
        ("--guidance", "x"), ("--stop", ""),
    ):  # fmt: skip
        yield [*prompt, f"{option}={value}"], ["nowhere is not a run" if value == "nowhere" else option.strip("-+")]
    yield [*prompt, "--filters+=TopK", "--filters.k", "0"], ["filters: TopK (top_k) has k 0, which must be at least 1"]
    yield [*prompt, "--filters+=Banned", "--filters.tokens", "[-1]"], ["Banned", "-1"]
    yield [*prompt, "--filters+=Banned", "--filters.tokens", "[999]"], ["Banned", "999"]
    yield [*prompt, "--filters+=LogitBias", "--filters.biases", "{1: .nan}"], ["LogitBias", "nan"]
    yield [*prompt, "--filters+=TopA", "--filters.ratio", ".inf"], ["TopA", "inf"]
    yield [*prompt, "--filters+=TopP"], ["p"]
    yield [*prompt, "--method", "BeamSearch", "--method.beams", "0"], ["beams"]
    yield [*prompt, "--prompts", "prompts.txt"], ["--prompt and --prompts prompts.txt"]
    yield [*prompt, "--interactive", "--jsonl"], ["--interactive"]
    yield [*prompt, "--stream", "--jsonl"], ["--stream"]
    yield [*prompt, "--lenght", "3"], ["did you mean --max_new_tokens"]
    yield [*generate, "a", "b"], ["'a' stands where an option was expected"]
    yield generate, ["a prompt of at least one character"]
    yield ["generate"], ["RUN is required"]
    yield ["generate", "nowhere", "--prompt", "a"], ["nowhere is not a run"]
    yield ["generate", "corpus.txt", "--prompt", "a"], ["corpus.txt is not a run"]
    yield ["generate", "", "--prompt", "a"], ["is not a run"]
    yield ["info"], ["info: the following arguments are required: RUN"]
    yield ["info", "runs/tiny", "--seq_len", "8"], ["--seq_len 8 is for the tree"]
    yield ["info", "runs/tiny", "--tree", "--seq_len", "x"], ["--seq_len", "'x'"]
    yield ["info", "runs/tiny", "--tree", "--seq_len", "0"], ["seq_len", "0"]
    yield ["info", "runs/tiny", "--tree", "--seq_len", "-3"], ["seq_len", "-3"]
    yield ["info", "runs/tiny", "--treee"], ["did you mean --tree?"]
    yield ["info", "a", "b"], ["info: unrecognized arguments: b"]
    yield ["average"], ["average: the following arguments are required: RUN"]
    yield ["average", "runs/pairs"], ["runs/pairs/0/checkpoints has no step-N.ckpt"]
    yield ["average", "nowhere"], ["nowhere is not a run"]
