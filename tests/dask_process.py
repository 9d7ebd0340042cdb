"""A flow run whose stage works on a Dask cluster; prints what came of it as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from prefect import flow, task

from longalign_core.config import Runtime
from longalign_core.corpora.shards import read_shard
from longalign_core.errors import LongAlignError
from longalign_core.execution import open_context
from longalign_core.stages.ingest import ingest
from tasks.engine import ClusterEngine, work_on
from tasks.runner import PrefectRunner
from tests.corpora_inputs import corpus
from tests.engine_jobs import fail, shard_jobs, square


def process_number(_: int) -> int:
    return os.getpid()


@task
def stage(folder: Path) -> dict[str, object]:
    engine = ClusterEngine(Runtime(engine="dask", workers=2, scratch=folder / "scratch"))
    looks: list[int] = []
    outcome: dict[str, object] = {
        "squares": list(engine.run(square, [1, 2, 3], label="square", look=lambda: looks.append(1))),
        "looks": len(looks),
    }
    jobs = shard_jobs(folder / "corpus", folder / "cluster")
    outcome["documents"] = sum(
        state.num_documents for state in engine.run(read_shard, jobs, label="ingest words", look=lambda: None)
    )
    pids = set(engine.run(process_number, list(range(8)), label="pid", look=lambda: None))
    outcome["workers"] = len(pids - {os.getpid()})
    try:
        list(engine.run(fail, [0, 2], label="fail", look=lambda: None))
    except LongAlignError as error:
        outcome["failed"] = [type(error).__name__, str(error)]
    blind = work_on(square, 2, folder / "elsewhere" / "mark", return_state=True).result(raise_on_failure=False)
    outcome["blind"] = [type(blind).__name__, str(blind)]
    return outcome


@flow
def shards(folder: Path) -> dict[str, object]:
    if (folder / "large").exists():
        runtime = Runtime(engine="dask", workers=2, store=str(folder / "store"), scratch=folder / "scratch")
        config = corpus("json_lines", name="words", location=str(folder / "large"))
        return {"address": PrefectRunner(open_context(runtime))(ingest, config, label="words").address}
    return stage(folder)


if __name__ == "__main__":
    print(json.dumps(shards(Path(sys.argv[1]))))
