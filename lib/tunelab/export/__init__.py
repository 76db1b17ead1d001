"""Take a result elsewhere, and bring one in:

    run ──> export_adapter()  a zip that PEFT loads          adapter made with PEFT ──> import_adapter() ──> run
        ──> export_merged()   a model of its own, safetensors
        ──> export_gguf()     one file for llama.cpp and what is built on it
        ──> export_ollama()   that file, and a Modelfile with template, system prompt and stops

Every export is checked before it gets its name: the zip by PEFT's own format, a merged model by its logits, a GGUF file
by reading it back. Importing this package does not import torch.
"""

from tunelab.export.adapter import export_adapter
from tunelab.export.foreign import import_adapter
from tunelab.export.gguf_file import GgufType, export_gguf
from tunelab.export.merged import MergedType, export_merged
from tunelab.export.ollama import export_ollama
from tunelab.export.targets import Exported

__all__ = [
    "Exported",
    "GgufType",
    "MergedType",
    "export_adapter",
    "export_gguf",
    "export_merged",
    "export_ollama",
    "import_adapter",
]
