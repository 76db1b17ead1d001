"""A run's own process: `python -m tunelab.worker RUN_DIR` trains or resumes the run and then ends.

The app starts it and may go away: everything it does stands in the run's directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tunelab.chain import train_run
from tunelab.errors import EXIT_FAILED, EXIT_USER_ERROR, explain
from tunelab.machine import libraries
from tunelab.run.run import Run


def main(directory: str) -> int:
    """The exit code: 0 finished or stopped as asked, 2 the user can act on the failure, 1 anything else."""
    libraries.prepare()
    try:
        for _event in train_run(Run(Path(directory).resolve())):
            pass
    except Exception as error:
        known = explain(error)
        print(known or f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR if known else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
