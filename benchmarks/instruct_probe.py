"""The stage `instruct` over a folder of documents, as a process of its own that can be watched and killed.

Run as `python -m benchmarks.instruct_probe FOLDER URL IN_FLIGHT TIMEOUT`; prints JSON.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ingest_inputs import paragraphs
from benchmarks.measuring import peak_memory_mb
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.progress import Silent, listening
from longalign_core.record_files import write_records
from longalign_core.records import Document, text_sha256
from longalign_core.stages.instruct import instruct

_ROOT = Path(__file__).resolve().parent.parent
_CHARACTERS_A_TOKEN = 4
_CORPORA = ("arxiv", "books", "c4", "wikipedia")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one run of the stage came to.

    Attributes:
        counts: Of its product.
        asking_seconds: From the first document begun to the last outcome.
        peak_mb: Largest resident memory of the process, imports included.
    """

    counts: dict[str, Any]
    asking_seconds: float
    peak_mb: float


def write_documents(folder: Path, number: int, num_tokens: int) -> None:
    """What `select` would have drawn: documents of so many tokens, made of real paragraphs."""

    def documents() -> Iterator[Document]:
        chance = random.Random(0)
        known = paragraphs()
        for index in range(number):
            parts, size = [f"Document {index} of the benchmark."], 0
            while size < num_tokens * _CHARACTERS_A_TOKEN:
                parts.append(chance.choice(known))
                size += len(parts[-1]) + 2
            text = "\n\n".join(parts)[: num_tokens * _CHARACTERS_A_TOKEN]
            source = _CORPORA[index % len(_CORPORA)]
            yield Document(
                id=f"{source}:{index}",
                text=text,
                source=source,
                language="en",
                origin="benchmark",
                sha256=text_sha256(text),
                licence="CC0-1.0",
                num_tokens=num_tokens,
            )

    write_records(folder / "selected" / "documents.parquet", documents(), Document, batch=32)


def command(folder: Path, url: str, *, in_flight: int, timeout_seconds: float) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "benchmarks.instruct_probe", str(folder), url, str(in_flight), str(timeout_seconds)]


def probe(folder: Path, url: str, *, in_flight: int, timeout_seconds: float) -> Probe:
    """Run the stage to its end in a process of its own."""
    asked = command(folder, url, in_flight=in_flight, timeout_seconds=timeout_seconds)
    done = subprocess.run(asked, capture_output=True, text=True, cwd=_ROOT)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stderr[-2000:]}")
    return Probe(**json.loads(done.stdout.splitlines()[-1]))


def start(folder: Path, url: str, *, in_flight: int, timeout_seconds: float) -> subprocess.Popen[bytes]:
    """Start a run, to be killed."""
    asked = command(folder, url, in_flight=in_flight, timeout_seconds=timeout_seconds)
    return subprocess.Popen(asked, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class _Watch(Silent):
    """Notes when the asking began and ended."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """The first document is begun."""
        self.began = self.began or time.perf_counter()
        return 0

    def end(self, handle: int) -> None:
        """The last outcome is there."""
        self.ended = time.perf_counter()


def main() -> None:
    """Command line."""
    folder, url, in_flight, timeout_seconds = sys.argv[1:5]
    root = Path(folder)
    config = InstructConfig(generator=ChatModel(model="writer", max_tokens=1024, context_tokens=128_000))
    runtime = Runtime(
        store=str(root / "store"),
        scratch=root / "scratch",
        endpoints={"generator": url},
        max_in_flight=int(in_flight),
        request_timeout_seconds=float(timeout_seconds),
    )
    watch = _Watch()
    with listening(watch):
        counts = instruct.function(config, {"documents": (root / "selected",)}, root / "out", runtime)
    found = Probe(counts=counts, asking_seconds=watch.ended - watch.began, peak_mb=peak_memory_mb())
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
