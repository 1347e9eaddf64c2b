"""Writes the model of the tests, for an environment without torch that runs them.

python test/stored_model.py out/test.unim2 && UNIM2_TEST_MODEL=out/test.unim2 pytest
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from scenes import train_on, write_bag

from unim2_core.sensing.rig import Rig


def make(out: Path) -> Path:
    """A small RGB and thermal model on the simple features; needs torch."""
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder, "drive")
        write_bag(drive, 6)
        return train_on(
            drive, Rig.default(("rgb", "thermal")), ("rgb", "thermal"), out, clusters=4
        )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
