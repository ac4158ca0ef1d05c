"""Puts the shipped topologies into the package when it is built; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithTopologies(build_py):
    """Copies topologies/*.yaml to sheafnet/topologies; an editable install reads them in place."""

    def run(self) -> None:
        """Build as ever, and copy."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "sheafnet" / "topologies"
            folder.mkdir(parents=True, exist_ok=True)
            for path in Path("topologies").glob("*.yaml"):
                shutil.copy(path, folder)


setup(cmdclass={"build_py": BuildWithTopologies})
