"""Errors in several processes of a run: each sentence is printed once on a machine. Imports nothing that takes time."""

import hashlib
import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from lightning_xt.system.stopping import count_processes, prints_for_user

LAUNCHED_BY = "LIGHTNING_XT_LAUNCHED_BY"
"""Environment variable that names the process that launched this one."""
LATER = 1.0
"""Seconds that the other processes leave to the first one, which prints the errors of all."""
OLD = 60.0
"""Seconds after which a mark is of another run."""
MARK = re.compile(r"lightning-xt-\d+-[0-9a-f]{16}")
"""Names of marks."""


def claim_report(sentence: str) -> bool:
    """Return True in the process that is to print a sentence: in the first, or in another that alone met the error."""
    first = prints_for_user()
    if count_processes() == 1:
        return first
    if not first:
        time.sleep(LATER)
    # Processes of a run have one parent on a machine, if it is not one of them.
    parent = os.environ.get(LAUNCHED_BY) or os.getppid()
    number = hashlib.sha256(sentence.encode("utf-8", "replace")).hexdigest()[:16]
    folder = Path(tempfile.gettempdir())
    for old in folder.glob("lightning-xt-*"):
        with suppress(OSError):
            if MARK.fullmatch(old.name) and time.time() - old.stat().st_mtime > OLD:
                old.unlink()
    mark = folder / f"lightning-xt-{parent}-{number}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return first
    return True
