"""python -m lightning_xt, and the command lightning-xt."""

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        # While the command line itself was imported.
        print("lightning-xt: interrupted", file=sys.stderr)
        sys.exit(130)


def _run() -> int:
    _leave_current_folder()
    from lightning_xt.system.output import finish_output, open_closed_streams

    open_closed_streams()
    from lightning_xt.cli import main as run

    code = run(last=True)
    finish_output()
    return code


def _leave_current_folder() -> None:
    """Keep Python from importing files of the current folder, which `python -m` puts before all others.

    Processes that Python starts for this one, such as data workers, do not look there either.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        # Libraries that torch loads end the process.
        print("lightning-xt: error: the current folder has been deleted; change to another one", file=sys.stderr)
        sys.exit(2)
    if not sys.flags.safe_path and sys.path[:1] in ([""], [folder]):
        del sys.path[0]
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != folder:
        os.environ.setdefault("PYTHONSAFEPATH", "1")


if __name__ == "__main__":
    main()
