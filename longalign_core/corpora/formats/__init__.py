"""Readers, one a native format. What several need lies beside this folder."""
