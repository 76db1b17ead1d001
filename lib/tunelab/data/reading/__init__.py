"""Files as tables of rows, by readers of our own that are capped and never crash:

    opening.py    a path → the files in it (gz, zip), each as bytes that are counted while they are read
    encoding.py   bytes → text
    delimited.py  CSV, TSV      quoting.py  their quotes      jsons.py  JSON, JSONL      sheets.py  Parquet, Excel
    unfolding.py  a row that holds several (SQuAD's paragraphs, `instances`) → those
    files.py      all of it: `read_table`, `read_pasted`
    checks.py     what a row may hold

Cells stay what was written (`007` stays `007`, `NA` stays `NA`), and every error names the file, the place and the next
step. General loaders guess types, unpack whatever they are given, and fail with tracebacks.
"""

from tunelab.data.reading.files import SUFFIXES, TEXTS, pasted_suffix, read_pasted, read_table
from tunelab.data.reading.table import Bad, Row, Table, bad_rows_note

__all__ = ["SUFFIXES", "TEXTS", "Bad", "Row", "Table", "bad_rows_note", "pasted_suffix", "read_pasted", "read_table"]
