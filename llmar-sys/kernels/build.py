#!/usr/bin/env python3
"""Compiles the kernels of this folder for GPU architectures, on a machine that needs neither a GPU nor a CUDA toolkit.

usage: build.py OUTDIR [--arch sm_75,sm_80,...] [--tools DIR]

All kernels are one program: a line `#include "NAME.cu"` for each .cu file in the order of their names, compiled by NVRTC with every .cu and
.cuh file given as a header of its name. The runtime compiles the same program where it finds no kernels for its GPU.

OUTDIR gets
    sm_XX.cubin    for each architecture; cubins of other architectures are removed
    resources.txt  what each kernel takes: registers, shared memory, stack frame, spills
    sources.txt    the sources the cubins were made from: for each file NAME, its length in bytes, a line break, its text
All of them are kept as they are when their content would not change. A kernel that spills registers or has a stack frame is an error: then
only resources.txt is written.
"""

import argparse
import concurrent.futures
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import typing

ARCHITECTURES = "sm_75,sm_80,sm_86,sm_87,sm_89,sm_90"
# The first compiler that knows sm_90, and of CUDA 11, whose cubins load with older drivers of CUDA 11 too.
PACKAGE, VERSION = "nvidia-cuda-nvrtc-cu11", "11.8.89"
# As in src/device/cuda/kernels.rs.
OPTIONS = ["--std=c++17"]
KERNELS = pathlib.Path(__file__).resolve().parent
# Lines of the table that is printed.
LARGEST = 12


class Failure(Exception):
    """What went wrong, for the user."""


class Resources(typing.NamedTuple):
    """What ptxas tells about one function."""

    arch: str
    kernel: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0

    def wasteful(self) -> bool:
        return self.stack + self.spill_stores + self.spill_loads > 0


# --- the compiler -----------------------------------------------------------------------------------------------------------------------


def find_nvrtc(tools: pathlib.Path) -> typing.Optional[pathlib.Path]:
    for packages in sorted(tools.glob("lib/python3*/site-packages")):
        library = packages / "nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2"
        if library.exists() and (packages / f"{PACKAGE.replace('-', '_')}-{VERSION}.dist-info").exists():
            return library
    return None


def install_nvrtc(tools: pathlib.Path) -> pathlib.Path:
    """The path of NVRTC's library, from a virtual environment of its own that is made where it is missing."""
    library = find_nvrtc(tools)
    if library is None:
        run([sys.executable, "-m", "venv", str(tools)], f"no virtual environment in {tools} (Debian: apt-get install python3-venv)")
        pip = [str(tools / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-compile"]
        failure = f"{PACKAGE} {VERSION} cannot be installed: no network, or the Python package index has none for this machine"
        run([*pip, f"{PACKAGE}=={VERSION}"], failure)
        library = find_nvrtc(tools)
    if library is None:
        raise Failure(f"{PACKAGE} {VERSION} was installed in {tools}, but holds no libnvrtc.so.11.2")
    return library


def run(command: typing.List[str], failure: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        raise Failure(f"{failure}\n{' '.join(command)}\n{done.stdout.strip()}")


def load(library: pathlib.Path) -> ctypes.CDLL:
    try:
        # NVRTC opens its built-in headers by name alone, so they have to be there before.
        ctypes.CDLL(str(library.with_name("libnvrtc-builtins.so.11.8")), mode=ctypes.RTLD_GLOBAL)
        nvrtc = ctypes.CDLL(str(library))
    except OSError as error:
        raise Failure(f"NVRTC does not load: {error}") from error
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


# --- compiling --------------------------------------------------------------------------------------------------------------------------


def read_sources() -> typing.Dict[str, bytes]:
    names = sorted((p.name for p in KERNELS.iterdir() if p.suffix in (".cu", ".cuh")), key=os.fsencode)
    return {name: (KERNELS / name).read_bytes() for name in names}


def program(sources: typing.Dict[str, bytes]) -> bytes:
    return b"".join(b'#include "%s"\n' % name.encode() for name in sources if name.endswith(".cu"))


def compile_for(arch: str, library: pathlib.Path, sources: typing.Dict[str, bytes]) -> typing.Tuple[bytes, typing.List[Resources]]:
    """The cubin of one architecture and what its kernels take."""
    nvrtc = load(library)
    made = ctypes.c_void_p()

    def check(status: int, what: str) -> None:
        if status != 0:
            raise Failure(f"{arch}: {what}: {nvrtc.nvrtcGetErrorString(status).decode()}")

    def fetch(size_of: str, content_of: str) -> bytes:
        size = ctypes.c_size_t()
        check(getattr(nvrtc, size_of)(made, ctypes.byref(size)), size_of)
        content = ctypes.create_string_buffer(size.value)
        check(getattr(nvrtc, content_of)(made, content), content_of)
        return content.raw

    names = (ctypes.c_char_p * len(sources))(*(name.encode() for name in sources))
    bodies = (ctypes.c_char_p * len(sources))(*sources.values())
    create = nvrtc.nvrtcCreateProgram
    check(create(ctypes.byref(made), program(sources), b"llmar.cu", len(sources), bodies, names), "nvrtcCreateProgram")
    options = [f"--gpu-architecture={arch}", *OPTIONS, "--ptxas-options=-v"]
    status = nvrtc.nvrtcCompileProgram(made, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
    log = fetch("nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
    if status != 0:
        raise Failure(f"{arch}: {nvrtc.nvrtcGetErrorString(status).decode()}\n{log.strip()}")
    cubin = fetch("nvrtcGetCUBINSize", "nvrtcGetCUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(made))
    return cubin, read_log(arch, log)


def read_log(arch: str, log: str) -> typing.List[Resources]:
    """What `ptxas -v` wrote: of each function its properties, and of a kernel a line of what it used behind them."""
    functions: typing.Dict[str, Resources] = {}
    name = ""
    for line in log.splitlines():
        found = re.search(r"Function properties for (\S+)", line)
        if found:
            name = found[1]
            functions[name] = Resources(arch, name)
            continue
        found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if found and name:
            stack, stores, loads = map(int, found.groups())
            functions[name] = functions[name]._replace(stack=stack, spill_stores=stores, spill_loads=loads)
        found = re.search(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?", line)
        if found and name:
            functions[name] = functions[name]._replace(registers=int(found[1]), shared=int(found[2] or 0))
    if not functions:
        raise Failure(f"{arch}: the log of ptxas tells of no function:\n{log.strip()}")
    return [functions[name] for name in sorted(functions)]


# --- results ----------------------------------------------------------------------------------------------------------------------------


def table(rows: typing.Iterable[Resources]) -> str:
    cells = [tuple(field.replace("_", " ") for field in Resources._fields)] + [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))) for row in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def largest(resources: typing.List[Resources]) -> typing.List[Resources]:
    """The kernels that take most, each where it takes most."""
    by_size = sorted(resources, key=lambda row: (row.registers, row.shared), reverse=True)
    first: typing.Dict[str, Resources] = {}
    for row in by_size:
        first.setdefault(row.kernel, row)
    return list(first.values())[:LARGEST]


def keep(path: pathlib.Path, content: bytes) -> None:
    """Writes a file unless it holds this already."""
    if path.exists() and path.read_bytes() == content:
        return
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def build(out: pathlib.Path, tools: pathlib.Path, archs: typing.List[str]) -> None:
    sources = read_sources()
    library = install_nvrtc(tools)
    workers = min(len(archs), os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        compiled = list(pool.map(compile_for, archs, [library] * len(archs), [sources] * len(archs)))
    cubins = {f"{arch}.cubin": cubin for arch, (cubin, _) in zip(archs, compiled)}
    resources = [row for _, rows in compiled for row in rows]

    out.mkdir(parents=True, exist_ok=True)
    keep(out / "resources.txt", table(resources).encode())
    print(table(largest(resources)), end="")
    wasteful = [row for row in resources if row.wasteful()]
    if wasteful:
        raise Failure("these spill registers or have a stack frame:\n" + table(wasteful).rstrip())

    # sources.txt vouches for the cubins beside it: it is the last to be written, and away while they change.
    listed = b"".join(b"%s %d\n%s" % (name.encode(), len(body), body) for name, body in sources.items())
    stale = [path for path in out.glob("sm_*.cubin") if path.name not in cubins]
    changed = [name for name, cubin in cubins.items() if not (out / name).exists() or (out / name).read_bytes() != cubin]
    if (stale or changed) and (out / "sources.txt").exists():
        (out / "sources.txt").unlink()
    for path in stale:
        path.unlink()
    for name in changed:
        keep(out / name, cubins[name])
    keep(out / "sources.txt", listed)
    print(f"{out}: {len(cubins)} architectures, {len(changed)} changed, {sum(map(len, cubins.values())) / 1024:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUTDIR", type=pathlib.Path)
    parser.add_argument("--arch", default=ARCHITECTURES, help=f"default {ARCHITECTURES}")
    parser.add_argument("--tools", metavar="DIR", type=pathlib.Path, help="where the compiler is installed; default OUTDIR/../kernel-tools")
    args = parser.parse_args()
    archs = list(dict.fromkeys(args.arch.split(",")))
    for arch in archs:
        if not re.fullmatch(r"sm_\d+", arch):
            parser.error(f"--arch: expected sm_75,sm_80 or the like, got `{args.arch}`")
    out = args.out.absolute()
    try:
        build(out, (args.tools or out.parent / "kernel-tools").absolute(), archs)
    except (Failure, OSError, concurrent.futures.BrokenExecutor) as error:
        sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
