"""Page of the whole architectures, written from the files of `configs/architectures`."""

import re

from introspection import ROOT
from reference_pages import cell, prose

LEAD = """\
# Architectures

Whole models from the parts of this package, at about the size of the quickstart. Each is the model part of a config,
laid over a recipe, whose data, schedule and, unless it names another, optimizer it keeps:

```bash
lightning-xt fit -c language/quickstart.yaml -c architectures/llama3.yaml
```

The sizes of an original are options: `--model.decoder.dim 4096 --model.decoder.depth 32` and so on. A test builds each
original whose number of parameters is published, without memory for them, and compares the numbers. Architectures with
an encoder are laid over a recipe of `translation`.
"""


def architectures_page() -> str:
    """Write the page: a table, then each architecture with its source, sizes, differences and options."""
    files = sorted((ROOT / "configs" / "architectures").glob("*.yaml"))
    heads = {file: read_head(file.read_text()) for file in files}
    lines = [LEAD, "| architecture | | file |", "|---|---|---|"]
    for file, ((name, text), *_) in heads.items():
        anchor = re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")
        lines.append(f"| [{name}](#{anchor}) | {cell(prose(text))} | `{file.name}` |")
    for file, ((name, text), *others) in heads.items():
        lines += ["", f"## {name}", "", f"`architectures/{file.name}`: {prose(text)}", ""]
        lines += [f"- {word}: {prose(said)}" for word, said in others]
        lines += ["", "```yaml", *file.read_text().splitlines()[count_head(file.read_text()) :], "```"]
    return "\n".join(lines) + "\n"


def count_head(text: str) -> int:
    """Return the number of the comment lines at the top of a config."""
    return next(number for number, line in enumerate(text.splitlines()) if not line.startswith("#"))


def read_head(text: str) -> list[tuple[str, str]]:
    """Return the paragraphs of the comment at the top, each as what stands before its first colon and what follows.

    A line that begins with two spaces more continues a paragraph.
    """
    top = "\n".join(text.splitlines()[: count_head(text)])
    paragraphs = (line.removeprefix("# ").partition(": ") for line in re.sub(r"\n#   +", " ", top).splitlines())
    return [(before, after) for before, _, after in paragraphs]
