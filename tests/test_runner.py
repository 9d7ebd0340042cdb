"""Runners and the execution of one stage, over small stages of the test's own."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longalign_core.config import Runtime
from longalign_core.config.base import Section, Source
from longalign_core.errors import DataError, InputError, ManifestError, MissingArtifactError, StoreError
from longalign_core.execution import Context, open_context
from longalign_core.runner import LocalRunner, PipelineEnd, PlanRunner, RequireRunner, Runner
from longalign_core.stage import Artifact, Stage, current_publisher, record_setting


class Words(Section):
    text: str


def read(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
    (out_dir / "text.txt").write_text(config.text)
    return {"characters": len(config.text)}


def join(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
    parts = [(folder / "text.txt").read_text() for folder in inputs["parts"]]
    (out_dir / "text.txt").write_text(config.text.join(parts))
    return {"parts": len(parts)}


READ: Stage[Words] = Stage("read", 1, read, parallel=True)
JOIN: Stage[Words] = Stage("join", 1, join)


def pipeline(run: Runner) -> Artifact:
    parts = run.map(READ, {"one": Words(text="a"), "two": Words(text="b")})
    return run(JOIN, Words(text="+"), parts=parts)


@pytest.fixture
def context(store_url: str, tmp_path: Path) -> Context:
    return open_context(Runtime(store=store_url, scratch=tmp_path / "scratch"))


def test_runners_give_the_same_addresses(context: Context) -> None:
    plan = PlanRunner(context)
    planned = pipeline(plan)
    local = LocalRunner(context)
    made = pipeline(local)
    required = RequireRunner(context)
    pipeline(required)
    assert planned.address == made.address
    assert [one.address for one in plan.artifacts] == [one.address for one in local.artifacts]
    assert required.artifacts == local.artifacts
    assert not any(one.done for one in plan.artifacts)
    text = context.store.fetch(context.store.require(made.address)) / "text.txt"
    assert text.read_text() == "a+b"


def test_second_run_finds_everything(context: Context) -> None:
    pipeline(LocalRunner(context))
    found: list[bool] = []
    pipeline(LocalRunner(context, observer=lambda artifact, manifest, was_there: found.append(was_there)))
    assert found == [True, True, True]


def test_until_ends_after_every_product_of_that_stage(context: Context) -> None:
    runner = LocalRunner(context, until="read")
    with pytest.raises(PipelineEnd):
        pipeline(runner)
    assert [one.stage for one in runner.artifacts] == ["read", "read"]


def test_require_of_what_is_not_there_names_the_stage(context: Context) -> None:
    with pytest.raises(MissingArtifactError, match="run the pipeline up to read first"):
        pipeline(RequireRunner(context))


def test_failed_stage_leaves_no_artifact_and_keeps_its_scratch_for_the_next_try(context: Context) -> None:
    tries: list[list[str]] = []

    def twice(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        tries.append(sorted(path.name for path in out_dir.iterdir()))
        (out_dir / f"try-{len(tries)}").touch()
        if len(tries) == 1:
            raise DataError("found a bad record; allowed are good ones; correct it")
        return {"tries": len(tries)}

    stage: Stage[Words] = Stage("twice", 1, twice)
    with pytest.raises(DataError):
        LocalRunner(context)(stage, Words(text=""))
    assert list(context.store.addresses("twice")) == []
    LocalRunner(context)(stage, Words(text=""))
    assert tries == [[], ["try-1"]]


def test_operating_system_error_in_a_stage_is_one_sentence(context: Context) -> None:
    def full(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device; check space and rights of the scratch folder"):
        LocalRunner(context)(Stage("full", 1, full), Words(text=""))


def test_artifact_whose_file_vanished_stops_the_run_instead_of_being_used(context: Context) -> None:
    made = pipeline(LocalRunner(context))
    manifest = context.store.require(made.address)
    context.store.files.delete(f"{manifest.folder}/text.txt")
    with pytest.raises(ManifestError, match="is gone"):
        pipeline(LocalRunner(context))


def test_two_threads_at_one_address_do_the_work_once(context: Context) -> None:
    calls: list[int] = []
    together = threading.Barrier(2)

    def slow(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        calls.append(1)
        return {}

    def start() -> None:
        together.wait(30)
        LocalRunner(context)(Stage("slow", 1, slow), Words(text=""))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert calls == [1]


class Folder(Section):
    place: Source


def test_source_that_changes_while_it_is_read_gives_no_artifact(context: Context, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("a")

    def slow_read(config: Folder, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        (data / "b.txt").write_text("arrived meanwhile")
        (out_dir / "names").write_text(str(sorted(path.name for path in data.iterdir())))
        return {}

    stage: Stage[Folder] = Stage("slow_read", 1, slow_read)
    with pytest.raises(InputError, match="changed during the run"):
        LocalRunner(context)(stage, Folder(place=str(data)))
    assert list(context.store.addresses("slow_read")) == []
    fresh = open_context(context.runtime)
    assert LocalRunner(fresh)(stage, Folder(place=str(data))).done


def test_scratch_left_by_a_kill_after_the_commit_is_removed(context: Context) -> None:
    made = LocalRunner(context)(READ, Words(text="a"))
    left = context.runtime.scratch / "work" / "read" / str(made.key)
    left.mkdir()
    (left / "text.txt").write_text("half of another try")
    LocalRunner(context)(READ, Words(text="a"))
    assert not left.exists()


def test_published_product_is_committed_while_its_stage_goes_on(context: Context) -> None:
    seen: list[str] = []
    model: Stage[Words] = Stage("model", 1, read)

    def work(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        folder = out_dir / ".model"
        folder.mkdir()
        (folder / "weights").write_text("w")
        published = current_publisher().publish(model, Words(text="step 1"), "step 1", folder, {"step": 1})
        seen.append(published.address)
        assert context.store.find(published.address)
        return {}

    runner = LocalRunner(context)
    parent = runner(Stage("work", 1, work), Words(text=""))
    again = runner(model, Words(text="step 1"), work=parent)
    assert again.address == seen[0]
    assert context.store.require(seen[0]).inputs == {"work": [parent.address]}


def test_recorded_setting_is_in_the_manifests_of_the_stage_and_of_what_it_published(context: Context) -> None:
    model: Stage[Words] = Stage("model", 1, read)
    published: list[str] = []

    def work(config: Words, inputs, out_dir: Path, runtime: Runtime) -> dict[str, int]:
        record_setting("deepspeed", {"stage": 3})
        folder = out_dir / ".model"
        folder.mkdir()
        (folder / "weights").write_text("w")
        published.append(current_publisher().publish(model, Words(text="1"), "1", folder, {}).address)
        return {}

    parent = LocalRunner(context)(Stage("work", 1, work), Words(text=""))
    after = LocalRunner(context)(READ, Words(text="z"))
    for address in (parent.address, published[0]):
        assert context.store.require(address).runtime["deepspeed"] == {"stage": 3}
    assert "deepspeed" not in context.store.require(after.address).runtime


def test_killed_stage_goes_on_where_it_was(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from longalign_core.config import Runtime
from longalign_core.config.base import Section
from longalign_core.execution import open_context
from longalign_core.runner import LocalRunner
from longalign_core.stage import Stage
class Nothing(Section): pass
def count(config, inputs, out_dir, runtime):
    done = len(list(out_dir.glob("part-*")))
    for number in range(done, 5):
        (out_dir / f"part-{number}").touch()
        if number == 2 and done == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return {"begun_at": done}
runtime = Runtime(store=sys.argv[1] + "/store", scratch=Path(sys.argv[1]) / "scratch")
context = open_context(runtime)
made = LocalRunner(context)(Stage("count", 1, count), Nothing())
print(context.store.require(made.address).counts["begun_at"])
"""
    first = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert first.returncode == -9
    second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert second.stdout.strip() == "3", second.stderr


def test_manifest_holds_no_key_from_the_environment(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "key-that-must-not-travel")
    with caplog.at_level(logging.DEBUG):
        made = pipeline(LocalRunner(context))
    assert b"key-that-must-not-travel" not in context.store.require(made.address).to_bytes()
    assert "key-that-must-not-travel" not in caplog.text
