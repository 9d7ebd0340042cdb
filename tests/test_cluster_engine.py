"""The cluster engine on a real Dask cluster of two workers, with a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longalign_core.config import Runtime
from longalign_core.corpora.shards import read_shard
from longalign_core.engine import InProcess
from longalign_core.errors import InputError
from tasks.engine import ClusterEngine
from tests.engine_jobs import shard_jobs
from tests.test_end_to_end import prefect_api  # noqa: F401 -- a fixture
from tests.test_engine import digests, run, write_corpus

REPOSITORY = Path(__file__).resolve().parent.parent


def test_cluster_engine_whose_packages_are_missing_names_the_extra():
    pytest.importorskip("prefect_dask")
    try:
        import prefect_ray  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"install longalign\[ray\]"):
            ClusterEngine(Runtime(engine="ray"))
    else:
        pytest.skip("prefect_ray is installed")


@pytest.mark.slow
def test_dask_cluster_of_two_workers_gives_the_same_bytes_and_errors(tmp_path, prefect_api):  # noqa: F811
    pytest.importorskip("prefect_dask")
    location = write_corpus(tmp_path / "corpus")
    run(InProcess(), read_shard, shard_jobs(location, tmp_path / "here"))
    command = [sys.executable, "-m", "tests.dask_process", str(tmp_path)]
    environment = {**os.environ, **prefect_api, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["squares"] == [1, 4, 9]
    assert outcome["looks"] >= 3
    assert outcome["failed"] == ["DataError", "the second cannot be used; change it"]
    assert outcome["workers"] == 2
    assert outcome["blind"][0] == "InputError"
    assert "does not see the scratch folder" in outcome["blind"][1]
    assert digests(tmp_path / "cluster") == digests(tmp_path / "here")
    assert not list((tmp_path / "scratch" / "engine").glob("?" * 32))
