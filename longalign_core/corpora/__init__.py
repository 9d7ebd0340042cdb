"""The room of the corpora: native files to documents, documents compared, documents drawn.

`readers.py` is the table of formats; `reading.py` says what a reader is; `shards.py` reads and cleans
one shard of a corpus; `cleaning.py` is what happens to every text. `formats/` has a reader a file and
leans on `latex/`, `markup/`, `repositories/`, `dumps/`; `prose/` judges one text, `comparing/` all of
them with one another, `selecting/` draws and reports.
"""
