"""README and docs are true: every command and every snippet runs, every link has a target.

The fence decides: `bash` runs as it stands, `bash long` runs with a tiny model and two steps, `bash cluster` is only
parsed; the requests of `bash served` and `python served` are sent to a server of tiny runs. Targets of
make are looked up, not made: they would make environments within this one.
"""

import gzip
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import build_site
import httpx
import pytest
import uvicorn
from doc_pages import PAGES, ROOT, SECTIONS, Section
from filelock import FileLock
from torch.distributed.run import get_args_parser

from lightning_xt import Decoder
from lightning_xt.cli import main
from lightning_xt.commands.catalogue.families import find_families, list_members
from lightning_xt.nn.attention.attention import Attention

TINY = {
    "fit": "--trainer.max_steps 2 --trainer.limit_val_batches 1 --trainer.enable_progress_bar false "
    "--model.decoder.dim 16 --model.decoder.depth 2 --data.seq_len 32 --sample_text.generation.max_new_tokens 2",
    "generate": "--max_new_tokens 8",
    "serve": "--port 0",
    "ablate": "--budget steps=2 --seeds 1 --floor 1 --trainer.limit_val_batches 1 --model.decoder.dim 16 "
    "--data.seq_len 32",
    "lr": "--steps 20 --lowest 1e-4 --model.decoder.dim 16 --model.decoder.depth 2 --data.seq_len 32",
}
TINY_PAIRS = {
    "fit": "--trainer.max_steps 2 --trainer.limit_val_batches 1 --trainer.enable_progress_bar false "
    "--model.schedule.warmup_steps 1 --model.encoder.dim 16 --model.encoder.depth 1 --model.decoder.dim 16 "
    "--model.decoder.depth 1 --model.val_decode_pairs 2",
    "generate": "--max_new_tokens 8",
    "serve": "--port 0",
}
"""Tiny options of an encoder-decoder."""
TINY_MASKED = {**TINY, "fit": TINY["fit"].replace("decoder", "encoder")}
RECIPES = ("language/quickstart", "language/llama_small", "translation/multi30k_cpu")
PREPARED = [["fit", "-c", f"{recipe}.yaml"] for recipe in RECIPES]
"""Commands of runs that the pages need; each runs once, before them."""
ADDRESS = "http://127.0.0.1:8000"
"""Address of the server in the pages."""
TRAINER_COMMANDS = {"fit", "validate", "test", "predict"}
# A user's function for GeneratorPairs: endless pairs.
CYCLE = """
import torch

def cycle():
    while True:
        src = torch.randint(2, 18, (4, 6))
        start = torch.ones(4, 1, dtype=torch.long)
        yield src, torch.cat((start, src, src), 1), torch.ones(4, 6, dtype=torch.bool)
"""

ROWS = """
from torch.utils.data import Dataset

class Rows(Dataset):
    def __init__(self, path: str) -> None:
        self.path = path
"""


def tiny_options(args: list[str]) -> list[str]:
    """Return options that make a command short."""
    words = " ".join(args)
    pairs = "translation" in words or "denoising" in words
    options = (TINY_PAIRS if pairs else TINY_MASKED if "masked" in words else TINY).get(args[0], "")
    if "probes/" in words:
        options = options.replace(
            "--data.seq_len 32", "--data.validation_size 4 --data.test_size 4 --data.batch_size 2"
        )
    if "Conversations" in args or "language/finetune_lora.yaml" in args:
        # A row holds whole conversations.
        options = options.replace("--data.seq_len 32", "--data.seq_len 96")
    if args[0] == "fit" and pairs:
        if "denoising" in words:
            options += "" if "ParallelText" in words else " --data.corpus.seq_len 32"
        elif "copy.yaml" not in words:
            options += " --data.tokenizer.vocab_size 280"
        elif "GeneratorPairs" not in words:
            options += " --data.validation_size 4 --data.test_size 4"
    return shlex.split(options)


def write_inputs(folder: Path) -> None:
    """Write the files that the pages need."""
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "corpus").mkdir()
    (folder / "corpus/a.txt").write_text("All happy families are alike. " * 200)
    (folder / "held_out.txt.gz").write_bytes(gzip.compress(b"Every unhappy family is unhappy in its own way. " * 20))
    story = json.dumps({"text": "Everything was in confusion in the house. " * 4})
    (folder / "stories.jsonl").write_text(f"{story}\n" * 40)
    talk = [("user", "Name a fruit."), ("assistant", "An apple."), ("user", "Another?"), ("assistant", "A pear.")]
    chat = json.dumps({"messages": [{"role": role, "content": content} for role, content in talk]})
    (folder / "chats.jsonl").write_text(f"{chat}\n" * 20)
    alpaca = json.dumps({"instruction": "Add.", "input": "2+2", "output": "4"})
    (folder / "alpaca.jsonl").write_text(f"{alpaca}\n" * 20)
    shares = json.dumps({"conversations": [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}]})
    (folder / "shares.jsonl").write_text(f"{shares}\n" * 20)
    answer = json.dumps({"question": "2+2?", "answer": "4"})
    (folder / "answers.jsonl.gz").write_bytes(gzip.compress(f"{answer}\n".encode() * 20))
    (folder / "questions.txt").write_text("Name a fruit.\nWhy?\n")
    (folder / "prompts.txt").write_text("def\nimport\n")
    (folder / "gaps.txt").write_text("de[MASK] main\nimport [MASK]s\n")
    (folder / "new.en").write_text("a dog\n\na cat\n")
    for name in ("train", "val", "test_2016_flickr"):
        for language, lines in (("en", "a dog runs\na cat\n" * 20), ("de", "ein Hund rennt\neine Katze\n" * 20)):
            for file in (folder / "data/multi30k" / f"{name}.{language}", folder / f"{name}.{language}"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(lines)
    pair = json.dumps({"en": "a dog", "de": "ein Hund"})
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(f"{pair}\n".encode() * 40))
    (folder / "my_task.py").write_text(CYCLE)
    (folder / "my_data.py").write_text(ROWS)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with those files and with tiny runs, made once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    folder, here = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "doc_inputs", Path.cwd()
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            folder.mkdir()
            write_inputs(folder)
            os.chdir(folder)
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("LIGHTNING_XT_DATA", str(folder / "data"))
                    for fit in PREPARED:
                        assert main([*fit, *tiny_options(fit)]) == 0
            finally:
                os.chdir(here)
            (folder / "complete").touch()
    return folder


@pytest.fixture
def workspace(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the inputs, as the current folder. The data folder is shared, like a user's."""
    folder = tmp_path / "workspace"
    shutil.copytree(inputs, folder, symlinks=True, ignore=shutil.ignore_patterns("data"))
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(inputs / "data"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def address(inputs: Path) -> Iterator[str]:
    """Return the address of a server of the tiny runs."""
    runs = [str(inputs / "runs/quickstart"), f"de={inputs / 'runs/multi30k_cpu'}"]
    ready, started = threading.Event(), {}

    def answer(app: Any, context: Any, taken: socket.socket, on_start: Callable[[], None]) -> None:
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None)
        started["server"], started["port"] = uvicorn.Server(config), taken.getsockname()[1]
        ready.set()
        started["server"].run(sockets=[taken])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_xt.server.server_process.run_server", answer)
        thread = threading.Thread(target=main, args=(["serve", *runs, "--port", "0"],))
        thread.start()
        assert ready.wait(60)
    yield f"http://127.0.0.1:{started['port']}"
    started["server"].should_exit = True
    thread.join()


def is_slow(section: Section) -> bool:
    """Return True for a section of the slow tests: it trains or starts processes, and is not the README's."""
    words = [words for _, words in section.commands("bash", "bash long")]
    return section.page != "README.md" and any(
        w[0] == "python" or (w[0] == "lightning-xt" and w[1] in TRAINER_COMMANDS | {"ablate"}) for w in words
    )


def sections_with(*infos: str) -> list:
    """Return the sections that have such fences, as parameters of a test."""
    found = [section for section in SECTIONS if any(section.fences(info) for info in infos)]
    slow = {section for section in found if "bash" in infos and is_slow(section)}
    return [pytest.param(s, id=str(s), marks=[pytest.mark.slow] if s in slow else []) for s in found]


@pytest.fixture
def stopped_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """End servers once they are ready for requests."""
    monkeypatch.setattr("lightning_xt.server.server_process.run_server", lambda app, context, taken, ready: ready())


@pytest.mark.usefixtures("stopped_server")
@pytest.mark.parametrize("section", sections_with("bash", "bash long"))
def test_every_command_runs(section: Section, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for info, (program, *args) in section.commands("bash", "bash long"):
        if program == "make":
            run = subprocess.run(["make", "-n", *args], cwd=ROOT, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
        elif program == "python":
            call = [sys.executable, ROOT / args[0], "--help"]
            run = subprocess.run(call, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
        elif args not in PREPARED:
            assert program == "lightning-xt"
            code = main([*args, *(tiny_options(args) if info == "bash long" else [])])
            assert code == 0, f"{args}: {capfd.readouterr().err}"
            check_output(args)


def check_output(args: list[str]) -> None:
    """Check that a prediction has a line for each line of its input."""
    for source, prompts in (("prompts.txt", 2), ("questions.txt", 2), ("gaps.txt", 2), ("new.en", 3)):
        if args[0] == "predict" and source in args:
            assert len(Path(args[args.index("--output") + 1]).read_text().splitlines()) == prompts


def test_pages_have_commands() -> None:
    pages = {section.page for section in SECTIONS if section.commands("bash", "bash long", "bash cluster")}
    assert {"README.md", *(f"docs/guides/{guide}.md" for guide in build_site.GUIDES)} <= pages
    readme = [section for section in SECTIONS if section.page == "README.md"]
    assert sum(len(section.commands("bash", "bash long")) for section in readme) > 15


def fit_arguments(words: list[str]) -> list[str] | None:
    """Return the arguments of `fit` in a command for a cluster, whoever starts it; None for another program."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    program, *args = words
    if program == "torchrun":
        known = get_args_parser().parse_args(args)
        assert known.no_python and known.training_script == "lightning-xt", args
        program, args = known.training_script, known.training_script_args
    if program == "lightning-xt":
        assert args[0] == "fit"
        return args[1:]
    for number, word in enumerate(words):
        if word.startswith("configs/cluster/") and word.endswith(".yml"):
            # tests/cluster/test_orchestrators.py parses it.
            assert (ROOT / word).is_file() and program in ("kubectl", "sky", "dstack"), words
            return None
        if word.startswith("configs/cluster/"):
            assert (ROOT / word).is_file()
            assert word.endswith(".sbatch") == (program == "sbatch"), words
            # Options that the script adds.
            return [*words[number + 1 :], "--ckpt_path=last", "--trainer.num_nodes=2", "--trainer.devices=8"]
    assert program in ("source", "scancel", "kill", "cat", "kubectl"), words
    return None


CLUSTER = [fit_arguments(words) for section in SECTIONS for _, words in section.commands("bash cluster")]
PARSED = list(dict.fromkeys(" ".join(args) for args in CLUSTER if args is not None))


@pytest.mark.parametrize("args", [pytest.param(a, marks=[pytest.mark.slow] if n else []) for n, a in enumerate(PARSED)])
def test_every_cluster_command_parses(args: str, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *args.split(), "--print_config"]) == 0, f"{args}: {capfd.readouterr().err}"
    assert "class_path" in capfd.readouterr().out


@pytest.mark.parametrize("section", sections_with("python"))
def test_every_snippet_runs(section: Section, workspace: Path) -> None:
    for text in section.fences("python"):
        exec(compile(text, section.page, "exec"), {})


@pytest.mark.parametrize("section", sections_with("yaml"))
def test_every_yaml_parses(section: Section, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, text in enumerate(section.fences("yaml")):
        file = workspace / f"{number}.yaml"
        file.write_text(text)
        assert main(["fit", "-c", "configs/language/quickstart.yaml", "-c", str(file), "--print_config"]) == 0
        printed = capfd.readouterr().out
        # Every class that the page names.
        assert {name for name in re.findall(r"\b[A-Z]\w+", text) if name not in printed} == set()


@pytest.mark.parametrize("section", sections_with("bash served", "python served"))
def test_every_request_is_answered(section: Section, address: str, capfd: pytest.CaptureFixture[str]) -> None:
    for _, (program, *words) in section.commands("bash served"):
        (url,) = [word for word in words if word.startswith("http")]
        data = words[words.index("-d") + 1] if "-d" in words else None
        headers = {"Content-Type": "application/json"} if "Content-Type: application/json" in words else {}
        method = "GET" if data is None else "POST"
        found = httpx.request(method, url.replace(ADDRESS, address), content=data, headers=headers, timeout=60)
        assert program == "curl" and found.status_code == 200, f"{words}: {found.text}"
        assert '"error"' not in found.text
    for text in section.fences("python served"):
        exec(compile(text.replace(ADDRESS, address), section.page, "exec"), {})
        assert len(capfd.readouterr().out) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links of a page lead to files of the repository, and their anchors to headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if not target.startswith("http"):
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name} links to {target}"
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M) if anchor else []
            assert not anchor or anchor in {build_site.slug(heading).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_three_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 250
    five = text.split("## Read these five files first")[1].split("\n## ")[0]
    assert len(re.findall(r"^\d\. ", five, re.M)) == 5
    for guide in build_site.GUIDES:
        assert f"(docs/guides/{guide}.md)" in text


def test_the_picture_names_slots() -> None:
    drawn = re.findall(r'class="slot[^"]*"[^>]*>([a-z_]+)<', (ROOT / "docs/assets/architecture.svg").read_text())
    assert len(drawn) > 20
    assert set(drawn) <= inspect.signature(Attention).parameters.keys() | inspect.signature(Decoder).parameters.keys()


def test_the_site_has_a_page_for_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    build_site.build(tmp_path / "docs")
    pages = tmp_path / "docs/pages"
    for folder, base in find_families().items():
        text = (pages / f"reference/{folder}.md").read_text()
        for variant in list_members(base):
            assert f"\n## {variant.__name__}\n" in text
    tree = (pages / "reference/the-tree-of-files.md").read_text()
    for path in (ROOT / "lightning_xt").rglob("*.py"):
        assert path.name == "__init__.py" or f"| `{path.name}` | " in tree
    assert {str(page.relative_to(ROOT)) for page in PAGES} == set(build_site.PAGES), "a page is not in the menu"
    zensical = shutil.which("zensical", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if zensical is not None:
        call = [zensical, "build", "--strict", "--config-file", tmp_path / "docs/zensical.toml"]
        assert subprocess.run(call, check=False).returncode == 0
