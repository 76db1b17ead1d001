"""From a `DataSpec` to encoded batches:

    read_data()  rows → examples → train and held-out      encode_all()  examples → tokens and loss mask
    preview(), overview()  what the model will see, for people      training_rows()  the same, plain text in blocks
    content.py   what rows teach, to tell them apart        batches.py   tokens → padded tensors
    chat_format()  how a tokenizer writes conversations, and what ends an answer: template.py, control.py, chat.py

Importing this package does not import torch.
"""

from tunelab.data.blocks import rows_alone, training_rows
from tunelab.data.chat import ChatFormat, chat_format
from tunelab.data.encode import Encoded, encode, encode_all, encode_prompt, neutralise, pack, prompt_notes
from tunelab.data.examples import DataSplit, Example, Message
from tunelab.data.previews import Overview, PreviewRow, overview, preview
from tunelab.data.split import read_data, read_examples

__all__ = [
    "ChatFormat",
    "DataSplit",
    "Encoded",
    "Example",
    "Message",
    "Overview",
    "PreviewRow",
    "chat_format",
    "encode",
    "encode_all",
    "encode_prompt",
    "neutralise",
    "overview",
    "pack",
    "preview",
    "prompt_notes",
    "read_data",
    "read_examples",
    "rows_alone",
    "training_rows",
]
