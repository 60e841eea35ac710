"""The last line of a run of tests/test_pairs.py: how many pairs were built, refused and failed."""

from collections import Counter
from collections.abc import Iterator

import pytest


class PairReport:
    """Plugin of pytest: prints the number of pairs that tests have recorded, as the last line."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.count = Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcomes of a test, which another process may have run."""
        if report.when == "call":
            for name, value in report.user_properties:
                self.count.update(value if name == "pairs" else {})

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        """Print the line behind everything else."""
        yield
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if self.count and terminal is not None and not hasattr(self.config, "workerinput"):
            numbers = ", ".join(f"{self.count[outcome]} {outcome}" for outcome in ("built", "refused", "failed"))
            terminal.write_line(f"pairs: {numbers}")
