"""LongAlign: from documents to a judged long-context model. Everything here is true without Prefect."""

__version__ = "0.1.0"
