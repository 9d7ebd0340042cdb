"""Corpora: one reader per native format, cleaning across corpora, selection by token length."""
