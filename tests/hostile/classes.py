"""Import paths that a config may not name."""

# ruff: noqa: E501 - a row of a table is a line

from collections.abc import Iterator

from hostile.case import Case
from tiny_run import TINY

RULE = "configs and checkpoints may name what is in lightning_xt, lightning, torch, torchmetrics and in modules of your own"
"""Words of a refusal."""  # fmt: skip
SLOTS = {
    "--model": "fit",
    "--data": "fit",
    "--model.optimizer": "fit",
    "--model.schedule": "fit",
    "--model.decoder.attention.position": "fit",
    "--trainer.callbacks": "fit",
    "--trainer.logger": "fit",
    "--trainer.plugins": "fit",
    "--method": "generate",
}
"""Options that take a class, and their command."""
COMMANDS = {"fit": ["fit", "-c", "tiny.yaml"], "generate": ["generate", "runs/tiny", "--prompt", "a"]}
DANGEROUS = ("os.system", "subprocess.Popen", "builtins.eval", "runpy.run_path", "yaml.YAMLObject", "numpy.memmap")
TRAP = "from pathlib import Path\nPath('sprung').touch()\nclass Trap: pass\n"


def cases() -> Iterator[Case]:
    """Yield all cases of classes."""
    for number, (slot, command) in enumerate(SLOTS.items()):
        # Each option, each path.
        for path in (DANGEROUS[number % len(DANGEROUS)], DANGEROUS[(number + 3) % len(DANGEROUS)]):
            yield Case(
                name=f"class: {slot} {path}",
                command=[*COMMANDS[command], slot, path],
                says=[f"{path} is not imported: {RULE}", f"LIGHTNING_XT_ALLOW={path.partition('.')[0]}"],
            )
    spec = "{class_path: subprocess.Popen, init_args: {args: [touch, hacked]}}"
    for before, after in (
        ("schedule:", f"optimizer: {spec}\n    schedule:"),
        ("devices: 1", f"devices: 1, callbacks: [{spec}]"),
        ("heads: 2", f"heads: 2, position: {spec}"),
        ("class_path: TextFiles", "class_path: http.server.HTTPServer"),
        ("class_path: LanguageModel", "class_path: code.InteractiveConsole"),
    ):
        yield Case(
            name=f"class: in a config, {after[:40]!r}",
            command=["fit", "-c", "mine.yaml"],
            says=["is not imported: ", RULE],
            files={"mine.yaml": TINY.replace(before, after, 1)},
        )
    yield Case(
        name="class: of another installed package, which is not even imported",
        command=[*COMMANDS["fit"], "--model.optimizer", "antigravity.Optimizer"],
        says=["antigravity.Optimizer is not imported: ", RULE],
    )
    for path in ("torch.os.system", "torch.nn.functional.warnings.warn", "lightning.pytorch.cli.sys.exit"):
        yield Case(
            name=f"class: passed on, {path}",
            command=[*COMMANDS["fit"], "--model.optimizer", path],
            says=[f"{path} is ", RULE],
        )
    for path in ("torch.load", "torch.hub.load", "lightning_xt.cli.main", "torch.utils.data.DataLoader"):
        yield Case(
            name=f"class: allowed, but no optimizer, {path}",
            command=[*COMMANDS["fit"], "--model.optimizer", path],
            says=["--model.optimizer", path],
        )
    function = [*COMMANDS["fit"], "--data", "GeneratorPairs", "--data.source_vocab_size", "9"]
    function += ["--data.target_vocab_size", "9", "--model", "Seq2Seq", "--data.function"]
    for path, says in (
        ("os.getcwd", "os.getcwd is not imported: "),
        ("os.path.abspath", "os.path.abspath is not imported: "),
        ("builtins.exec", "builtins.exec is not imported: "),
        ("numpy.load", "numpy.load is not imported: "),
        ("mine.os.getcwd", "mine.os"),
        ("nowhere.cycle", "there is no module nowhere here"),
        ("mine.nothing", "there is no nothing in mine"),
        ("mine.number", "number is a int, not a function, in mine"),
        ("cycle", "is not an import path"),
        ("", "is not an import path"),
        (".cycle", "is not an import path; write module and function"),
        ("mine..cycle", "there is no module mine"),
        ("mine.cycle()", "no cycle()"),
        ("broken.cycle", "broken.py, line 1: invalid syntax; fix it there"),
    ):
        yield Case(
            name=f"class: a function, {path!r}",
            command=[*function, path],
            says=[f"--data.function {path}".rstrip(), says],
            files={"mine.py": "import os\nnumber = 7\n", "broken.py": "def cycle(:\n"},
        )
    for path in ("nope", "Nope.Nope", "trap.", ".trap", "trap..Trap", "a b.c", "trap.Trap()", "трап.Trap"):
        yield Case(
            name=f"class: no such, {path}",
            command=[*COMMANDS["fit"], "--model.optimizer", path],
            says=["--model.optimizer"],
        )
    for name, content in {"raises": "raise RuntimeError('no')\n", "broken": "class A(:\n"}.items():
        yield Case(
            name=f"class: of a custom module that {name}",
            command=[*COMMANDS["fit"], "--model.optimizer", f"{name}.A"],
            says=["--model: "],
            files={f"{name}.py": content},
        )
    yield Case(
        name="class: in a folder that only looks like one's own",
        command=[*COMMANDS["fit"], "--model.optimizer", "subprocess.Popen"],
        says=["subprocess.Popen is not imported: ", RULE],
        files={"subprocess.py": TRAP, "subprocess/__init__.py": TRAP},
    )
