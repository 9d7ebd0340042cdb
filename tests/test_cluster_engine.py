"""The cluster engine on a real Dask cluster of two workers, with a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from longalign_core.config import Runtime
from longalign_core.corpora.shards import read_shard
from longalign_core.engine import InProcess
from longalign_core.errors import InputError
from longalign_core.execution import open_context
from longalign_core.runner import LocalRunner
from longalign_core.stages.ingest import SMALL_BYTES, ingest
from tasks.engine import ClusterEngine
from tests.corpora_inputs import corpus
from tests.engine_jobs import shard_jobs
from tests.test_end_to_end import prefect_api  # noqa: F401 -- a fixture
from tests.test_engine import digests, run, write_corpus

REPOSITORY = Path(__file__).resolve().parent.parent


def test_cluster_engine_whose_packages_are_missing_names_the_extra():
    try:
        import prefect_ray  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"install longalign\[ray\]"):
            ClusterEngine(Runtime(engine="ray"))
    else:
        pytest.skip("prefect_ray is installed")


def flow_run(folder: Path, prefect_api: dict[str, str]) -> dict[str, Any]:  # noqa: F811
    command = [sys.executable, "-m", "tests.dask_process", str(folder)]
    environment = {**os.environ, **prefect_api, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_dask_cluster_of_two_workers_gives_the_same_bytes_and_errors(tmp_path, prefect_api):  # noqa: F811
    location = write_corpus(tmp_path / "corpus")
    run(InProcess(), read_shard, shard_jobs(location, tmp_path / "here"))
    outcome = flow_run(tmp_path, prefect_api)
    assert outcome["squares"] == [1, 4, 9]
    assert outcome["looks"] >= 3
    assert outcome["failed"] == ["DataError", "the second cannot be used; change it"]
    assert outcome["workers"] == 2
    assert outcome["blind"][0] == "InputError"
    assert "does not see the scratch folder" in outcome["blind"][1]
    assert digests(tmp_path / "cluster") == digests(tmp_path / "here")
    assert not list((tmp_path / "scratch" / "engine").glob("?" * 32))


@pytest.mark.slow
def test_ingest_on_dask_commits_the_product_of_local_processes(tmp_path, prefect_api):  # noqa: F811
    location = write_corpus(tmp_path / "large", num_files=2, lines_a_file=16_000)
    assert sum(file.stat().st_size for file in location.iterdir()) > SMALL_BYTES
    address = flow_run(tmp_path, prefect_api)["address"]
    here = open_context(Runtime(store=str(tmp_path / "here"), scratch=tmp_path / "here-scratch"))
    config = corpus("json_lines", name="words", location=str(location))
    assert LocalRunner(here)(ingest, config, label="words").address == address
    there = open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))
    hashes = [{one.path: one.sha256 for one in at.store.require(address).files} for at in (here, there)]
    assert hashes[0] == hashes[1]
    names = httpx.post(f"{prefect_api['PREFECT_API_URL']}/task_runs/filter", json={}).json()
    assert "ingest words 1/1" in {one["name"] for one in names}
