"""python -m lightning_xt, and the command lightning-xt."""

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _leave_current_folder()
    from lightning_xt.system.output import finish_output, open_closed_streams

    open_closed_streams()
    from lightning_xt.cli import main as run

    code = run(last=True)
    finish_output()
    sys.exit(code)


def _leave_current_folder() -> None:
    """Keep Python from importing files of the current folder, which `python -m` puts before all others.

    Processes that Python starts for this one, such as data workers, do not look there either.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    if not sys.flags.safe_path and sys.path[:1] in ([""], [folder]):
        del sys.path[0]
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != folder:
        os.environ.setdefault("PYTHONSAFEPATH", "1")


if __name__ == "__main__":
    main()
