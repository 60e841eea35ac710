"""The first ten minutes of a new user, with the wheel alone in an empty folder: docs/guides/first-ten-minutes.md.

`python tests/test_first_ten_minutes.py` plays them and writes the page.
"""

import importlib.util
import os
import re
import shlex
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guides" / "first-ten-minutes.md"
SHORT = "--trainer.max_steps 60 --validate_every 30 --trainer.limit_val_batches 4 --trainer.log_every_n_steps 20"
PLAY = [
    ("How to start", "lightning-xt fit"),
    ("Train", f"lightning-xt fit -c language/quickstart.yaml {SHORT}"),
    ("The run's folder", "ls runs/quickstart/0 runs/quickstart/0/checkpoints"),
    (
        "Complete a prompt",
        "lightning-xt generate runs/quickstart --prompt 'def main(' --max_new_tokens 40 --temperature 0",
    ),
    ("Measure the best checkpoint", "lightning-xt validate runs/quickstart"),
    ("Train further", "lightning-xt fit runs/quickstart --resume --trainer.max_steps 80"),
    ("Change one idea", f"lightning-xt fit -c language/quickstart.yaml -c variants/alibi.yaml {SHORT} --name alibi"),
    ("A mistake", "lightning-xt fit -c language/quickstart.yaml --model.decoder.attention.position ALiBii"),
    ("An option without its place", "lightning-xt fit -c language/quickstart.yaml --lr 0.001"),
    ("Your own text", "mkdir corpus"),
    ("", "python -c \"open('corpus/a.txt', 'w').write('All happy families are alike. ' * 2000)\""),
    ("", f"lightning-xt fit -c language/quickstart.yaml --data TextFiles --data.path corpus --name mine {SHORT}"),
    ("What a checkpoint holds", "lightning-xt info runs/mine"),
    ("From Python", "python -c 'import inspect, lightning_xt; print(inspect.getdoc(lightning_xt.Decoder))'"),
]
"""Headings and commands."""
HEAD = """\
# The first ten minutes

What a new user sees after `pip install` of the wheel, in an empty folder, on a CPU. A test plays these commands and
compares this page with their output, numbers and times aside. The runs are short, so their models know little: omit the
options after the recipe for the five minutes that quickstart takes.
"""
TAIL = """
## Next

[Your own text](own-data.md), [composing a model](composing.md), [translating](translating.md), or all options:

```bash
lightning-xt fit --help
```
"""


def install(folder: Path) -> Path:
    """Install the wheel alone, with dependencies from this environment; return the folder of its programs."""
    isolated = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", *isolated, "-w", folder, ROOT], check=True, cwd=folder)
    (wheel,) = folder.glob("lightning_xt-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    subprocess.run([*pip, f"--python={programs / 'python'}", "install", "--no-deps", wheel], check=True, cwd=folder)
    (packages,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return programs


def play(programs: Path, folder: Path) -> str:
    """Type the commands in an empty folder and return the page."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and name[:4] != "LXT_"}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "LIGHTNING_XT_DATA": f"{folder.parent / 'data'}"}
    environment |= {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    text = HEAD
    for heading, command in PLAY:
        begun = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        seconds = f"# {time.monotonic() - begun:.0f} seconds" + (
            f", exit code {done.returncode}" if done.returncode else ""
        )
        text += f"\n## {heading}\n" if heading else ""
        text += f"\n```console\n$ {command}\n{done.stdout}{seconds}\n```\n"
    return text + TAIL


def mask(text: str) -> str:
    """Replace numbers, hashes, names of machines, the completions of the models, and what slow or busy machines add."""
    text = re.sub(r"^[a-z][^\n]*: \d+ %, [\d:]+ left\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"  other processes use [\d.]+ of \d+ cores$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(def main\().*?(?=^#)", r"\1\n", text, flags=re.M | re.S)
    text = re.sub(r"\b[0-9a-f]{12,}\b", "HASH", text)
    text = re.sub(r"tfevents\S+|\+c(pu|u\d+)\b", "", text)
    return re.sub(r"\d[\d.,]*|\binf\b", "#", text).replace("threads", "thread")


@pytest.mark.slow
def test_the_page_shows_what_a_new_user_sees(tmp_path: Path) -> None:
    try:
        programs = install(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(
            f"the wheel cannot be built here, without hatchling or a network: {shlex.join(map(str, error.cmd))}"
        )
    (tmp_path / "empty").mkdir()
    assert mask(play(programs, tmp_path / "empty")) == mask(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_every_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\$ (.*)", text, re.MULTILINE) == [command for _, command in PLAY]
    assert "Traceback" not in text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        found = install(Path(made))
        (Path(made) / "empty").mkdir()
        PAGE.write_text(play(found, Path(made) / "empty"), encoding="utf-8")
