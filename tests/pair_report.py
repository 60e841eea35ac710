"""The last line of a run of tests/test_pairs.py: how many pairs were built, refused and failed."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


class PairReport:
    """Plugin of pytest: prints the number of pairs as the last line, and writes their outcomes to a file.

    Args:
        file: file for the outcomes, JSON. None = none is written.
    """

    def __init__(self, config: pytest.Config, file: str | None) -> None:
        self.config, self.file = config, file
        self.outcomes: list[list[str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the outcomes of a test, which another process may have run."""
        if report.when == "call":
            self.outcomes += [each for name, value in report.user_properties if name == "pairs" for each in value]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        """Print the line behind everything else."""
        yield
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if not self.outcomes or terminal is None or hasattr(self.config, "workerinput"):
            return
        if self.file is not None:
            Path(self.file).write_text(json.dumps(self.outcomes, indent=0))
        count = Counter(outcome for _, _, outcome, _ in self.outcomes)
        terminal.write_line(f"pairs: {count['built']} built, {count['refused']} refused, {count['failed']} failed")
