"""Folder of a starter: its config, its sample, and the commands that come next."""

import os
from pathlib import Path
from shlex import quote

from lightning_xt.commands.starter.starter import Starter
from lightning_xt.system.files import replace_file
from lightning_xt.system.messages import UserError

CONFIG = "config.yaml"
IGNORED = ".gitignore"
IGNORED_FILES = "runs/\ncompare.png\nlr.png\nschema.json\n"
"""Files that the commands write."""


def write_project(
    folder: str | None, *, translation: bool, path: str | None, target_path: str | None, field: str | None
) -> int:
    """Write the files of a starter and print the next commands; return the exit code.

    Args:
        folder: where to write. None = my-text, or my-translation.
        translation: True for a translator.
        path: the user's data. None = those in the folder's data, else a sample.
        target_path: file of the targets.
        field: field of JSON lines.

    Raises:
        UserError: the data are not usable, or a file is there already.
    """
    _check_options(translation=translation, path=path, target_path=target_path, field=field)
    root = Path(folder or ("my-translation" if translation else "my-text"))
    if (root / CONFIG).exists():
        raise UserError(f"init: {root / CONFIG} is there already, and nothing is overwritten; give another folder")
    if root.exists() and not root.is_dir():
        raise UserError(f"init: {root} is a file; give a folder")
    if path is None and not (root / "data").is_dir():
        _require_no_files(root, translation=translation)
    starter = _choose(root, translation=translation, path=path, target_path=target_path, field=field)
    for name in starter.files:
        if os.path.lexists(root / name):
            raise UserError(f"init: {root / name} is there already, and nothing is overwritten; give another folder")
    ignored = {} if os.path.lexists(root / IGNORED) else {IGNORED: IGNORED_FILES}
    for name, text in {CONFIG: starter.config, **starter.files, **ignored}.items():
        _write(root / name, text)
    print(f"\n{starter.found}. Next:\n")
    here = [] if root.resolve() == Path.cwd().resolve() else [f"cd {quote(str(root))}"]
    for command in (*here, *starter.commands):
        print(f"  {command}")
    return 0


def _check_options(*, translation: bool, path: str | None, target_path: str | None, field: str | None) -> None:
    if target_path is not None and not translation:
        raise UserError(f"init: --target_path {target_path} is for a translator; add --translation, or omit it")
    if target_path is not None and path is None:
        raise UserError(f"init: --target_path {target_path} needs the file of its sources; give it with --path")
    if field is not None and (translation or path is None):
        raise UserError(f"init: --field {field} is for JSON lines of a language model; give them with --path")


def _require_no_files(root: Path, *, translation: bool) -> None:
    """Raise a `UserError` if a folder holds files, which are the user's data and no place for a starter."""
    count = 0
    for _, folders, files in os.walk(root):
        folders[:] = [each for each in folders if not each.startswith(".")]
        count += sum(not each.startswith(".") for each in files)
    if not count:
        return
    name = "my-translator" if translation else "my-model"
    whole = root.resolve()
    if Path.cwd().is_relative_to(whole):
        # Not within the data, which would then contain the runs.
        name = os.path.join(os.path.relpath(whole.parent), name)
    while os.path.lexists(name):
        name += "-2"
    what = "1 file; for its text" if count == 1 else f"{count:,} files; for their text"
    option = "--translation " if translation else ""
    raise UserError(f"init: {root} holds {what} run lightning-xt init {quote(name)} {option}--path {quote(str(root))}")


def _choose(root: Path, *, translation: bool, path: str | None, target_path: str | None, field: str | None) -> Starter:
    """Return the starter for the data."""
    if path is None and _has_files(root / "data"):
        path = str(root / "data")
    if translation:
        from lightning_xt.commands.starter.starter_pairs import describe_pairs, make_sample_pairs

        return make_sample_pairs(root) if path is None else describe_pairs(root, path, target_path)
    from lightning_xt.commands.starter.starter_text import describe_text, make_sample_text

    return make_sample_text(root) if path is None else describe_text(root, path, field)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir())


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as out:
            out.write(text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"init: {file} cannot be written ({error.strerror}); give another folder") from error
    print(f"wrote {file}")
