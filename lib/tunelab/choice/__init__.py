"""Which model suits the rows: `models_for` lists what is on this machine and what is open on the Hub, says what each
takes here, and measures those at hand on some of the rows.

    known.toml ──> published    at_hand ──> what lies here    ahead ──> memory, minutes    measuring ──> bits a byte
                                        all of them ──> models_for ──> Choice, with a recommendation

Uses everything that stands before it: models are loaded, rows encoded, and for a probe an adapter is trained for a few
steps. Importing it does not import torch.
"""

from tunelab.choice.models import models_for
from tunelab.choice.suited import Choice, Suited

__all__ = ["Choice", "Suited", "models_for"]
