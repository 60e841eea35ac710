"""A bar for what takes longer than a moment."""

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

PATIENCE = 2.0  # seconds until there is a bar


def with_progress(blocks: Iterable[bytes], what: str, total: int | None = None, *, done: int = 0) -> Iterator[bytes]:
    """Passes blocks on, and draws how far they are on standard error if they take more than `PATIENCE` seconds.

    The bar is drawn on a terminal only, by one process of a machine, and disappears in the end.

    Args:
        blocks: where the bytes come from.
        what: what is being done, such as "reading corpus.txt".
        total: bytes there will be; None if that is not known.
        done: bytes of the total that were there before the first block.
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
            # Blocks may be as short as a line of text, too many to redraw for each.
            if (now := time.monotonic()) > due:
                progress.start()
                progress.advance(task, new)
                due, new = now + 0.1, 0
            yield block
    finally:
        if progress.live.is_started:
            progress.stop()
