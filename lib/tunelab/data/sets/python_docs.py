"""`python-docs`: what a function, class or method of Python's standard library does, answered with the first paragraph
of its docstring, read from the interpreter in use. Real text by many authors in one recognisable voice, which a small
model does not know by heart: tuning shows within minutes, and anybody can check an answer with `help()`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

# no module that prints, opens windows, starts threads or is being removed from Python
MODULES = """
argparse array base64 binascii bisect builtins calendar cmath codecs collections collections.abc colorsys
configparser contextlib copy csv datetime decimal difflib enum fileinput fnmatch fractions functools gc getpass glob
graphlib gzip hashlib heapq hmac html http.client http.cookies inspect io ipaddress itertools json keyword linecache
locale logging math mimetypes numbers operator os os.path pathlib pickle platform pprint queue random re
reprlib sched secrets select selectors shelve shlex shutil signal socket sqlite3 statistics string struct subprocess
sys tarfile tempfile textwrap threading time timeit tokenize traceback types unicodedata urllib.error urllib.parse
urllib.request uuid warnings wave weakref zipfile zlib
""".split()
QUESTIONS = (
    "What does `{name}` do in Python?",
    "In Python's standard library, what is `{name}` for?",
    "Explain `{name}` briefly.",
    "What is the purpose of Python's `{name}`?",
)
SHORTEST, LONGEST = 20, 400  # characters of an answer


def python_docs() -> list[dict[str, Any]]:
    """Rows with `prompt`, `completion` and `object`, in a fixed order.

    Read in a fresh interpreter: libraries that are loaded here may have patched the standard library, and the same
    interpreter must always give the same rows.
    """
    result = subprocess.run([sys.executable, "-I", __file__], capture_output=True, check=True)
    return json.loads(result.stdout)


def _read_docs() -> list[dict[str, Any]]:
    """The rows, from the standard library as this process sees it; equal texts are kept once."""
    rows, seen = [], set()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, thing in _public_callables():
            text = _first_paragraph(thing)
            if text is None or text.casefold() in seen:
                continue
            seen.add(text.casefold())
            question = QUESTIONS[zlib.crc32(name.encode()) % len(QUESTIONS)]
            rows.append({"prompt": question.format(name=name), "completion": text, "object": name})
    return rows


def _public_callables() -> Iterator[tuple[str, Any]]:
    """Public functions, classes and their methods, each under the first name that reaches it."""
    for module_name in MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # not on this platform, or built without it
            continue
        for name, thing in _members(module, getattr(module, "__all__", None)):
            if not callable(thing) or inspect.ismodule(thing):
                continue
            home = getattr(thing, "__module__", None) or module_name
            if module_name == "builtins" and isinstance(thing, type) and issubclass(thing, BaseException):
                home = "builtins"
            if home.lstrip("_").split(".")[0] != module_name.split(".")[0] and module_name not in ("os", "operator"):
                continue
            prefix = "" if module_name == "builtins" else f"{module_name}."
            yield f"{prefix}{name}", thing
            if inspect.isclass(thing):
                for method_name, method in _members(thing, None, own=True):
                    if inspect.isroutine(method) or isinstance(method, (classmethod, staticmethod)):
                        yield f"{prefix}{name}.{method_name}", method


def _members(owner: Any, exported: Any, own: bool = False) -> list[tuple[str, Any]]:
    names = sorted(exported) if exported else sorted(vars(owner))
    values = vars(owner)
    return [(n, values[n] if own else getattr(owner, n, None)) for n in names if not n.startswith("_") and n in values]


def _first_paragraph(thing: Any) -> str | None:
    """The first paragraph of a docstring as one line, without the signature lines C functions put first."""
    document = getattr(thing, "__doc__", None)
    if not isinstance(document, str):
        return None
    lines = inspect.cleandoc(document).split("\n")
    while lines and (not lines[0].strip() or re.match(r"^[\w.]+\(.*(\)|,)\s*(->\s*.+)?$", lines[0].strip())):
        lines.pop(0)
    paragraph = " ".join(_until_blank(lines).split())
    text = re.sub(r"^[\w.]+\([^)]*\)\s*(->\s*[\w\[\], .|]+?)?\s*(--|—|:|-)\s+", "", paragraph).strip()
    if not SHORTEST <= len(text) <= LONGEST or text.endswith((":", ",")) or ">" in text or not text[0].isalpha():
        return None
    return text


def _until_blank(lines: list[str]) -> str:
    kept = []
    for line in lines:
        if not line.strip():
            break
        kept.append(line.strip())
    return " ".join(kept)


if __name__ == "__main__":
    print(json.dumps(_read_docs()))
