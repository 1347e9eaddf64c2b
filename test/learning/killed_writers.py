"""Writers of a features' cache, each killed by ``kill -9`` at another moment.

    python test/learning/killed_writers.py FOLDER MOMENTS     # FOLDER/1 to FOLDER/MOMENTS

A program of its own, because a process that has threads must not be forked.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from picture_samples import Means, Pictures

from unim2_core.learning.feature_cache import open_features


def die_at(moment: int, cache: Path) -> None:
    """In a process of its own: kill -9 at the so-manieth time that something is on the disk."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return
    try:
        calls = iter(range(1, 1000))

        def sync_and_die(file: int) -> None:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fdatasync = sync_and_die
        open_features(Pictures(), Means(), cache, batch=2)
    finally:
        os._exit(1)


if __name__ == "__main__":
    for moment in range(1, int(sys.argv[2]) + 1):
        die_at(moment, Path(sys.argv[1]) / str(moment))
