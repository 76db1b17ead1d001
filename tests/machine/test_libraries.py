"""Whoever uses the library straight from Python sees its own words and no other library's chatter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig, finetune

# On some CPUs only, bitsandbytes says that it found no kernel, when it is imported: here it does on every one.
CHATTER = """
import logging, sys
class Chatter:
    def find_spec(self, name, *_):
        if name == "bitsandbytes.backends.cpu.ops":
            logging.getLogger(name).warning("Failed to load CPU gemm_4bit_forward")
sys.meta_path.insert(0, Chatter())
"""
CHECK = "\nassert 'bitsandbytes.backends.cpu.ops' in sys.modules"


def nf4(folder):
    return ModelSpec(repo_id=folder, quantization="nf4", dtype="float32")


def printed_by(code):
    result = subprocess.run([sys.executable, "-c", CHATTER + code + CHECK], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_loading_a_quantised_base_prints_nothing(tiny):
    assert printed_by(f"from tunelab import ModelSpec, load; load(ModelSpec(**{nf4(tiny).model_dump()}))") == ""


@pytest.mark.slow
def test_comparing_prints_nothing(tiny):
    stage = Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(steps=1, batch_size=2, warmup_steps=0))
    run = finetune(RunConfig(model=nf4(tiny), technique=LoRA(r=4), stages=[stage]))
    asked = f"compare('{run.id}', 'say red', max_new_tokens=2)"
    assert printed_by(f"from tunelab import compare; assert {asked}.done") == ""


LATER = """
import gc, weakref
from tunelab.machine import libraries
libraries.load()
kept = gc.get_freeze_count()
libraries.load()
assert gc.isenabled() and gc.get_freeze_count() == kept > 100_000
class Cycle: pass
cycle = Cycle(); cycle.itself = cycle; seen = weakref.ref(cycle)
del cycle
gc.collect()
assert seen() is None
print("done")
"""


def test_what_is_imported_is_not_looked_through_for_garbage_and_what_is_made_later_is():
    result = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True)
    assert result.stdout == "done\n", result.stderr


# As transformers does, it takes its time and then puts another module in its own place.
REPLACING = """
import sys, time, types
time.sleep(0.5)
new = types.ModuleType(__name__)
new.thing = "the thing"
sys.modules[__name__] = new
"""
TWO_THREADS = """
import sys, threading, time
from tunelab.machine import libraries
libraries.import_from_several_threads("replacing")
def first():
    import replacing
def second():
    while "replacing" not in sys.modules:
        time.sleep(0.001)
    from replacing import thing
    print(thing)
threads = [threading.Thread(target=each) for each in (first, second)]
for thread in threads:
    thread.start()
"""


def test_who_imports_a_package_that_replaces_itself_while_another_thread_does_gets_what_is_in_it(tmp_path):
    (tmp_path / "replacing.py").write_text(REPLACING)
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", TWO_THREADS], capture_output=True, text=True, env={**os.environ, **paths}
    )
    assert result.stdout == "the thing\n", result.stderr


def test_every_program_may_import_transformers_from_several_threads():
    code = "import sys; from tunelab.machine import libraries; libraries.prepare(); libraries.prepare()"
    code += "; import transformers"
    code += "; print(sum(hasattr(one, 'name') and one.name == 'transformers' for one in sys.meta_path))"
    code += "; print(type(transformers).__name__, transformers.__spec__.name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["1", "_LazyModule", "transformers"], result.stderr
