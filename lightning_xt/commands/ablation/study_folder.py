"""Folder of an ablation: its plan, and a file for each result."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_xt.commands.ablation.study_plan import BASE
from lightning_xt.system.files import replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError

PLAN = "plan.json"


class StudyFolder:
    """Folder of an ablation. Each file is complete or absent, so that the study can be killed at any moment.

    Args:
        path: the folder, which is made once there is something to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.option = f"ablate --out {path}"
        """The option that names it, in messages."""
        self._known: dict[str, dict[str, Any]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder, and keep other processes from continuing its study within the block."""
        lock = FileLock(self.path / ".lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"{self.option}: another process continues the study there; wait for it, or end it"
            ) from error
        except OSError as error:
            raise UserError(f"{self.option} cannot be written ({error.strerror}); give another folder") from error
        try:
            yield
        finally:
            lock.release()

    def read_plan(self) -> dict[str, Any] | None:
        """Return the plan of the study in the folder; None if there is none, UserError if it has other files."""
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise UserError(f"{self.option} is not a folder; give another")
        plan = self._read(PLAN)
        # A kill while the plan is written leaves a part of it.
        if plan is None and any(each.name not in (".lock", f".{PLAN}.part") for each in self.path.iterdir()):
            raise UserError(f"{self.option} holds other files and no {PLAN}; give an empty folder, or another")
        return plan

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        self._write(PLAN, plan)

    def read_speed(self, variant: str) -> dict[str, Any] | None:
        """Return what a step of a variant costs, or its error; None if it is not known yet."""
        return self._read_once(self.name_speed(variant))

    def write_speed(self, variant: str, costs: Mapping[str, Any]) -> None:
        self._write(self.name_speed(variant), costs)

    def read_result(self, key: str) -> dict[str, Any] | None:
        """Return the result of a run, or its error; None if it is not done yet."""
        return self._read_once(self.name_result(key))

    def write_result(self, key: str, result: Mapping[str, Any]) -> None:
        self._write(self.name_result(key), result)
        self._known.pop(self.name_result(key), None)

    def name_speed(self, variant: str) -> str:
        """Return the name in the folder of the file of a variant's costs."""
        return f"speed/{variant}.json"

    def name_result(self, key: str) -> str:
        """Return the name in the folder of the file of a run's result."""
        return f"results/{key}.json"

    def has_probed(self) -> bool:
        """Return whether a probe has a result that says something, which the first one, of the base, alone does not."""
        return any(file.name != f"{BASE}-0.json" for file in self.path.glob("results/probe*/*.json"))

    def write_overlay(self, name: str, text: str) -> Path:
        """Write the overlay of a variant, from which its runs read, and return its file."""
        file = self.path / "overlays" / f"{name}.yaml"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            self.write_text(f"overlays/{name}.yaml", text)
        return file

    def write_text(self, name: str, text: str) -> Path:
        """Write a file, and return it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as out:
            out.write(text.encode("utf-8"))
        return file

    def _read_once(self, name: str) -> dict[str, Any] | None:
        """Return a file that changes by this object only."""
        if name not in self._known and (found := self._read(name)) is not None:
            self._known[name] = found
        return self._known.get(name)

    def _read(self, name: str) -> dict[str, Any] | None:
        file = self.path / name
        try:
            return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
        except (OSError, TypeError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); remove it, and what it held is done again") from error

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, to_json(value, indent=1) + "\n")
