"""Reads hub corpora in a process of its own: the hub's libraries read their environment while they are imported.

Takes a JSON list of tasks on standard input, each `{"fields": …, "position": n}`, and prints a list of outcomes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import datasets.config

from longalign_core.corpora.readers import READERS
from longalign_core.corpora.reading import Cursor, RawDocument
from longalign_core.errors import LongAlignError
from tests.corpora_inputs import corpus


def outcome(fields: dict[str, str], position: int = 0, unit: int | None = None) -> dict[str, object]:
    config = corpus("hub", **fields)
    reader = READERS["hub"]
    records: list[list[object]] = []
    units: list[str] = []
    try:
        found = list(reader.units([], config))
        units = [one.name for one in found]
        with tempfile.TemporaryDirectory() as scratch:
            for one in found if unit is None else found[unit : unit + 1]:
                cursor = Cursor(Path(scratch), position)
                for record in reader.read(one, config, cursor):
                    is_document = isinstance(record, RawDocument)
                    what = record.text if is_document else record.reason
                    more = [record.url, record.title] if is_document else []
                    records.append([record.name if is_document else record.id, what, cursor.position, *more])
    except LongAlignError as error:
        return {"error": type(error).__name__, "message": str(error), "records": records}
    return {"units": units, "records": records}


if __name__ == "__main__":
    # The libraries wait minutes for a lost connection to come back; here they soon try again.
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # type: ignore[assignment]
    datasets.config.STREAMING_READ_MAX_RETRIES = 1
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 0
    json.dump([outcome(**task) for task in json.load(sys.stdin)], sys.stdout)
