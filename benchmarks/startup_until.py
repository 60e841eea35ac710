"""End of a command where it has started up. Usage: python benchmarks/startup_until.py step|token COMMAND [options].

Runs the command in this process, and ends the process with `REACHED` right after the first optimizer step, or when the
first text is on standard output.
"""

import os
import sys
from typing import Any

REACHED = 70
"""Exit code of a command that got so far; no command ends with it."""


def end(*_: Any) -> None:
    os._exit(REACHED)


def end_after_step() -> None:
    """End the process after the first step of any optimizer."""
    from lightning_xt.commands.models import import_lightning as module

    import_lightning = module.import_lightning

    def import_and_wait() -> None:
        # Torch is imported when the command does it.
        import_lightning()
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(end)

    module.import_lightning = import_and_wait


def end_after_token() -> None:
    """End the process once a text has been written to standard output."""
    stdout: Any = sys.stdout
    write, flush = stdout.write, stdout.flush

    def write_and_end(text: str) -> int:
        count: int = write(text)
        if text:
            flush()
            end()
        return count

    stdout.write = write_and_end


if __name__ == "__main__":
    until = sys.argv.pop(1)
    # The folder of the benchmarks, whose files have plain names.
    del sys.path[0]
    {"step": end_after_step, "token": end_after_token}[until]()
    from lightning_xt.__main__ import main

    main()
