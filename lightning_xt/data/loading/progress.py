"""Progress bars for reading and downloading."""

import os
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PATIENCE = 2.0  # seconds before the bar appears


def with_progress(blocks: Iterable[bytes], what: str, total: int | None = None, *, done: int = 0) -> Iterator[bytes]:
    """Yield blocks, with a progress bar on standard error if they take more than `PATIENCE` seconds.

    One process of a machine draws the bar, on a terminal only; it disappears at the end.

    Args:
        blocks: blocks of bytes.
        what: the activity, such as "reading corpus.txt".
        total: bytes of all blocks; None if unknown.
        done: bytes of the total done before the first block.
    """
    console = Console(stderr=True)
    if not console.is_terminal or os.environ.get("LOCAL_RANK", "0") != "0":
        yield from blocks
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = progress.add_task(what, total=total, completed=done)
    due, new = time.monotonic() + PATIENCE, 0
    try:
        for block in blocks:
            new += len(block)
            # Blocks may be as short as a line, too many to redraw for each.
            if (now := time.monotonic()) > due:
                progress.start()
                progress.advance(task, new)
                due, new = now + 0.1, 0
            yield block
    finally:
        if progress.live.is_started:
            progress.stop()
