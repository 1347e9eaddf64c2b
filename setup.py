"""Put config/ and launch/ into the wheel; all else about the distribution is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithShare(build_py):
    """Build the packages, and ``unim2_core/share`` where ``unim2_core.shares`` looks for it.

    An editable install needs no copy: there the files are found in the checkout.
    """

    def run(self) -> None:
        """Copy the folders after the packages."""
        super().run()
        if self.editable_mode:
            return
        for folder in ("config", "launch"):
            target = Path(self.build_lib, "unim2_core", "share", folder)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithShare})
