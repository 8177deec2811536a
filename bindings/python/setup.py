# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the wheel around a libllmar.so that is there: LLMAR_LIBRARY names it."""

import os
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class BuildWithLibrary(build_py):
    """Puts the library beside the package's modules."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            library = os.environ.get("LLMAR_LIBRARY")
            if not library:
                raise SystemExit("LLMAR_LIBRARY must name the libllmar.so that the wheel is to hold (`make python-wheel` does it)")
            target = Path(self.build_lib, "llmar", "libllmar.so")
            target.unlink(missing_ok=True)
            shutil.copyfile(library, target)


class NativeWheel(bdist_wheel):
    """For this platform and any Python 3: the library knows nothing of Python's ABI."""

    def get_tag(self) -> "tuple[str, str, str]":
        return "py3", "none", super().get_tag()[2]


class NativeDistribution(Distribution):
    """Goes where native code goes, though no extension is compiled here."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=NativeDistribution, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": NativeWheel})
