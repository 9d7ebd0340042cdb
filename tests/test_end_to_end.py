"""The whole pipeline over real corpora: killed and gone on with, on a folder and on S3, with Prefect and without."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fake_batch_server import FakeBatchServer
from tests.small_recipe import small_recipe

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = ["ingest"] * 4 + ["clean", "select", "instruct", "mixture", "encode", "batches", "train", "checkpoint"]
STAGES += ["evaluate"] * 2 + ["scorecard"]


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=REPOSITORY, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def chat_server(log: Path, delay: float = 0.0) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fake_chat_server", "--port", "0", "--log", str(log), "--delay", str(delay)]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("end-to-end")
    small_recipe(folder, test_data)
    return folder


def settings(scratch: Path, url: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "LONGALIGN_SCRATCH": str(scratch),
        "LONGALIGN_ENDPOINTS": json.dumps({"generator": url, "judge": url, "candidate": url}),
        "LONGALIGN_MAX_IN_FLIGHT": "2",
        "LONGALIGN_CHECKPOINT_INTERVAL": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def longalign(*arguments: str, environment: dict[str, str], code: int = 0) -> str:
    command = [sys.executable, "-m", "longalign_core.cli", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def planned(recipe: Path, store: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    return json.loads(longalign("plan", str(recipe), "--store", store, "--json", environment=environment))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def ours(mark: str) -> list[psutil.Process]:
    """Processes that carry a run's mark in their environment: whatever it started, in any session."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LONGALIGN_TEST_RUN") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_when(recipe: Path, store: str, environment: dict[str, str], condition: Callable[[], bool], what: str) -> None:
    command = [sys.executable, "-m", "longalign_core.cli", "run", str(recipe), "--store", store]
    log = recipe.parent / "killed.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)

    def reached() -> bool:
        assert process.poll() is None, f"the run ended before {what}:\n{log.read_text()}"
        return condition()

    wait_until(reached, 300, what)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not ours(environment["LONGALIGN_TEST_RUN"]), 15, "the end of every process of the killed run")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_run_killed_in_instruct_and_in_train_finishes_with_no_call_repeated(workplace: Path, tmp_path: Path) -> None:
    recipe, store, log = workplace / "small.yaml", str(tmp_path / "store"), tmp_path / "requests"
    scratch = tmp_path / "scratch"
    with chat_server(log, delay=0.1) as url:
        environment = settings(scratch, url, LONGALIGN_TEST_RUN="killed")
        plan = planned(recipe, store, environment)
        assert [row["stage"] for row in plan] == STAGES
        assert all(row["address"] and not row["done"] for row in plan)

        kill_when(recipe, store, environment, lambda: len(lines(log)) >= 9, "the ninth request")
        asked_before = lines(log)
        events = scratch / "work" / "train"
        kill_when(
            recipe,
            store,
            environment,
            lambda: any('"step"' in file.read_text() for file in events.glob("*/.events*")),
            "the first training step",
        )
        longalign("run", str(recipe), "--store", store, environment=environment)

        answered = asked_before[:-2]  # two calls may have been under way at the kill
        assert not set(answered) & set(lines(log)[len(asked_before) :])
        after = planned(recipe, store, environment)
        assert [row["address"] for row in after] == [row["address"] for row in plan]
        assert all(row["done"] for row in after)
        wait_until(lambda: not ours("killed"), 15, "the end of every process")

        steps = next(row for row in after if row["stage"] == "train")["figures"]["steps"]
        assert steps == next(row for row in after if row["stage"] == "batches")["figures"]["steps"]
        num_requests = len(lines(log))
        # What is in the store needs no model any more.
        without = {**environment, "LONGALIGN_ENDPOINTS": "{}"}
        output = longalign("run", str(recipe), "--store", store, environment=without)
        assert output.count(" found ") == len(STAGES)
        assert len(lines(log)) == num_requests
        page = Path(output.split("scorecard page:\n")[1].splitlines()[0])
        assert "<svg" in page.read_text() or "data:image/png" in page.read_text()

        document = json.loads((next(Path(store).glob("instruct/*/*/conversations.jsonl"))).read_text().splitlines()[0])
        rows = json.loads(
            longalign("trace", document["document_id"], "--store", store, "--json", environment=environment)
        )
        assert [row["what"] for row in rows][:5] == [
            "read",
            "kept",
            "drawn",
            "conversation written",
            "in the training set",
        ]
        assert rows[-1]["what"] == "placed in a step"
        card = after[-1]["address"]
        assert longalign("verify", card, "--store", store, environment=environment).count("sound") == len(STAGES)
        assert card in longalign("show", card, "--store", store, environment=environment)


@pytest.fixture(scope="module")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server; gives the environment that points at it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = (home / "server.log").open("w")
    with started(command, env={**os.environ, **environment}, stdout=log, stderr=log):
        wait_until(lambda: _healthy(environment["PREFECT_API_URL"]), 120, "a healthy Prefect server")
        yield environment


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_prefect_run_on_s3_gives_the_planned_addresses_and_a_graph(
    workplace: Path, tmp_path: Path, s3_url: str, prefect_api: dict[str, str]
) -> None:
    recipe = workplace / "small.yaml"
    with chat_server(tmp_path / "requests") as url:
        plain = settings(tmp_path / "scratch", url, LONGALIGN_TEST_RUN="prefect")
        plan = planned(recipe, s3_url, plain)
        longalign("run", str(recipe), "--store", s3_url, environment={**plain, **prefect_api})
        after = planned(recipe, s3_url, plain)
        assert_parts_find_everything(recipe, s3_url, {**plain, **prefect_api}, {row["address"] for row in plan})
    assert [row["address"] for row in after] == [row["address"] for row in plan]
    assert all(row["done"] for row in after)
    wait_until(lambda: not ours("prefect"), 15, "the end of every process")

    api = prefect_api["PREFECT_API_URL"]
    (flow,) = httpx.post(f"{api}/flows/filter", json={"flows": {"name": {"any_": ["longalign"]}}}).json()
    (run,) = httpx.post(f"{api}/flow_runs/filter", json={"flows": {"id": {"any_": [flow["id"]]}}}).json()
    assert run["state"]["type"] == "COMPLETED"
    graph = httpx.get(f"{api}/flow_runs/{run['id']}/graph-v2").json()
    nodes = {node["id"]: node["label"] for _, node in graph["nodes"]}
    parents = {node["label"]: {nodes[one["id"]] for one in node["parents"]} for _, node in graph["nodes"]}
    corpora = {f"ingest {name}" for name in ("books", "c4", "github", "wikipedia")}
    assert corpora <= set(parents)
    assert corpora <= parents["clean"]
    assert "clean" in parents["select"]
    assert "batches" in parents["train"]
    assert "checkpoint final" in parents["evaluate needle"]
    assert {"evaluate essays", "evaluate needle"} <= parents["scorecard"]


PART = """
import importlib, sys
flow = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
print(*flow(sys.argv[3], store=sys.argv[4], return_state=True).result().lines, sep="\\n")
"""


def assert_parts_find_everything(recipe: Path, store: str, environment: dict[str, str], addresses: set[str]) -> None:
    """The flows of the pipeline's parts come to the addresses of the whole, with nothing left to do."""
    found: set[str] = set()
    for module, flow in (("flows.dataset", "dataset"), ("flows.training", "train"), ("flows.evaluation", "evaluate")):
        command = [sys.executable, "-c", PART, module, flow, str(recipe), store]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found |= {line.split()[-1] for line in done.stdout.splitlines()}
    assert found == addresses


def test_mistakes_under_prefect_end_with_one_sentence_and_no_traceback(
    workplace: Path, tmp_path: Path, prefect_api: dict[str, str]
) -> None:
    recipe = str(workplace / "small.yaml")
    environment = {**settings(tmp_path / "scratch", "http://127.0.0.1:9/v1"), **prefect_api}
    command = [sys.executable, "-m", "longalign_core.cli", "run", recipe, "--store", str(tmp_path / "store")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_batches_under_way_end_a_run_with_code_4_and_one_sentence_and_no_failed_flow(
    workplace: Path, tmp_path: Path, prefect_api: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "longalign_core.cli", "run", str(workplace / "small.yaml"), "--until", "instruct"]
    with FakeBatchServer() as server:
        since = datetime.now(UTC).isoformat()
        environment = settings(
            tmp_path / "scratch",
            server.root,
            LONGALIGN_ENDPOINTS=json.dumps({"generator": f"openai+{server.root}/v1", "judge": server.root}),
            LONGALIGN_GENERATOR_CALLS="batch",
            LONGALIGN_STORE=str(tmp_path / "store"),
        )
        for more in ({}, prefect_api):
            settled = {"env": {**environment, **more}, "cwd": REPOSITORY, "text": True, "timeout": 300}
            done = subprocess.run(command, capture_output=True, **settled)
            assert done.returncode == 4, done.stdout + done.stderr
            assert "Traceback" not in done.stdout + done.stderr
            said = [line for line in done.stderr.splitlines() if line.startswith(("waiting: ", "error: "))]
            assert [line.partition(":")[0] for line in said] == ["waiting"]
            assert said[0].endswith("1 batch is under way; run again to collect")
        assert len(server.batches) == 1
    api = prefect_api["PREFECT_API_URL"]
    wanted = {"flow_runs": {"start_time": {"after_": since}}}
    (run,) = httpx.post(f"{api}/flow_runs/filter", json=wanted).json()
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Waiting")
    assert "under way; run again to collect" in run["state"]["message"]
    tasks = httpx.post(f"{api}/task_runs/filter", json={"flow_runs": {"id": {"any_": [run["id"]]}}}).json()
    assert {one["name"]: one["state"]["name"] for one in tasks}["instruct"] == "Waiting"


def test_schedule_of_a_deployment_creates_runs(prefect_api: dict[str, str]) -> None:
    api = prefect_api["PREFECT_API_URL"]
    flow = httpx.post(f"{api}/flows/", json={"name": "scheduled"}).json()
    schedule = {"active": True, "schedule": {"cron": "*/10 * * * *", "timezone": "UTC"}}
    body = {"name": "often", "flow_id": flow["id"], "schedules": [schedule]}
    deployment = httpx.post(f"{api}/deployments/", json=body).json()
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    wait_until(lambda: bool(httpx.post(f"{api}/flow_runs/filter", json=wanted).json()), 120, "a scheduled run")


def test_cancelled_flow_run_ends_every_rank_and_leaves_a_point_to_go_on_from(
    workplace: Path, tmp_path: Path, prefect_api: dict[str, str]
) -> None:
    api, scratch = prefect_api["PREFECT_API_URL"], tmp_path / "scratch"
    environment = {
        **settings(scratch, "http://127.0.0.1:9/v1", LONGALIGN_TEST_RUN="cancelled", PREFECT_WORKER_QUERY_SECONDS="1"),
        **prefect_api,
    }
    prefect = [sys.executable, "-m", "prefect"]
    for command in (["work-pool", "create", "longalign", "--type", "process"], ["--no-prompt", "deploy", "-n", "full"]):
        subprocess.run([*prefect, *command], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    # A suite without long conversations asks no model; so many epochs would take minutes.
    overrides = ["mixture.suite=0k", "batching.epochs=1000"]
    parameters = {
        "recipe": str(workplace / "small.yaml"),
        "overrides": overrides,
        "store": str(tmp_path / "store"),
        "until": "train",
    }
    with (
        (tmp_path / "worker.log").open("w") as log,
        started([*prefect, "worker", "start", "--pool", "longalign"], env=environment, stdout=log, stderr=log),
    ):
        deployment = httpx.get(f"{api}/deployments/name/longalign/full").json()
        run = httpx.post(f"{api}/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
        of_run = f"{api}/flow_runs/{run.json()['id']}"
        wait_until(lambda: any(scratch.glob("work/train/*/.resume/*/resume.json")), 300, "a resume point")
        assert len(training("cancelled")) >= 2
        httpx.post(f"{of_run}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}})
        wait_until(lambda: httpx.get(of_run).json()["state"]["type"] == "CANCELLED", 120, "the cancelled state")
        wait_until(lambda: not training("cancelled"), 15, "the end of every rank")
    assert any(scratch.glob("work/train/*/.resume/*/resume.json"))


def training(mark: str) -> list[psutil.Process]:
    """Ranks of a run and what started them."""
    return [process for process in ours(mark) if "longalign_core.training.worker" in process.cmdline()]
