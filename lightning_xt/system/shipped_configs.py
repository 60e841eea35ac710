"""Configs that the package ships, which commands find from any folder."""

import difflib
import os
import textwrap
from pathlib import Path

RECIPES = ("language", "translation", "denoising", "probes")
"""Folders of whole runs. A config of another folder changes a recipe."""
HEAD = """\
fit trains a model from a config, for example

  lightning-xt fit -c language/quickstart.yaml
  lightning-xt fit -c language/quickstart.yaml --data TextFiles \\
      --data.path 'corpus/**/*.txt' --name mine

Recipes:
"""
OVERLAYS = "Changes of a recipe, each given by another -c after it, as variants/alibi.yaml:"
WIDTH = 78
LISTED = "lightning-xt fit without options lists the shipped ones"


def find_config(name: str | Path) -> Path:
    """Return the file of a config: the one with this path, else the shipped one of this name.

    A shipped config is named with or without `configs/`, such as `language/quickstart.yaml`.
    """
    shipped = {} if os.path.lexists(name) else list_configs()
    return shipped.get(Path(name).as_posix().removeprefix("configs/"), Path(name))


def list_configs() -> dict[str, Path]:
    """Return the shipped configs by name."""
    # An installed package holds them; a checkout has them next to the package.
    package = Path(__file__).parents[1]
    folder = next((each for each in (package / "configs", package.parent / "configs") if each.is_dir()), package)
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.glob("*/*.yaml"))}


def explain_start() -> str:
    """Return how to start a `fit`, with the shipped configs."""
    text, overlays = HEAD, dict[str, list[str]]()
    for name, file in list_configs().items():
        folder, _, own = name.partition("/")
        if folder in RECIPES:
            first = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            text += f"  {name}\n{textwrap.indent(textwrap.fill(first, WIDTH - 6), 6 * ' ')}\n"
        else:
            overlays.setdefault(f"{folder}/", []).append(own)
    text += f"\n{OVERLAYS}\n"
    for folder, names in overlays.items():
        text += (
            textwrap.fill(" ".join(names), WIDTH, initial_indent=f"  {folder:15}", subsequent_indent=17 * " ") + "\n"
        )
    return text


def explain_missing_config(file: str) -> str:
    """Return a sentence about a config that does not exist."""
    stems = {Path(name).stem: name for name in list_configs()}
    close = difflib.get_close_matches(Path(file).stem.lower(), stems, cutoff=0.75)
    offer = f"did you mean {' or '.join(stems[each] for each in close)}? " if close else ""
    return f"there is no file {file}; {offer}check the path given to -c or --config ({LISTED})"
