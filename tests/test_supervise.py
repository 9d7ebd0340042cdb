"""The wrapper that ends a command with the process that asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from longalign_core.supervise import supervised

# Writes the ids of itself, of a child in a new session, and of an orphaned grandchild, then waits.
TREE = """
import os, pathlib, signal, subprocess, sys, time
waits = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); print(1, flush=True); time.sleep(600)"
orphan = (
    "import subprocess, sys;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    "start_new_session=True, stdout=subprocess.DEVNULL);"
    "print(p.pid, flush=True)"
)
child = subprocess.Popen([sys.executable, "-c", waits], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
grandchild = int(subprocess.check_output([sys.executable, "-c", orphan]))
target = pathlib.Path(sys.argv[1])
target.with_suffix(".part").write_text(f"{os.getpid()} {child.pid} {grandchild}")
target.with_suffix(".part").rename(target)
time.sleep(600)
"""

# The same with a child that ignores TERM.
STUBBORN_TREE = TREE.replace("SIG_DFL", "SIG_IGN")

# A run that supervises TREE in a thread, for as long as it lives.
RUN = """
import pathlib, sys, threading, time
from longalign_core.supervise import supervised
def run():
    with supervised([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=None, log=pathlib.Path(sys.argv[3])) as p:
        p.wait()
threading.Thread(target=run).start()
time.sleep(600)
"""


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def pids_in(path: Path) -> list[int]:
    wait_until(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def gone(pids: list[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # perhaps gone between one look and the next
        return False


@pytest.mark.parametrize("code", [0, 3])
def test_supervised_command_that_ends_passes_on_its_exit_code_and_output(tmp_path, code):
    script = f"import sys; print('out'); print('err', file=sys.stderr); sys.exit({code})"
    log = tmp_path / "new" / "log.txt"
    with supervised([sys.executable, "-c", script], env=None, log=log) as process:
        assert process.wait(30) == code
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_supervised_command_killed_by_a_signal_gives_128_plus_its_number(tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with supervised([sys.executable, "-c", script], env=None, log=tmp_path / "log") as process:
        assert process.wait(30) == 128 + signal.SIGKILL


def test_supervised_unknown_program_gives_127_and_says_so(tmp_path):
    with supervised(["no-such-program-here"], env=None, log=tmp_path / "log") as process:
        assert process.wait(30) == 127
    assert "no-such-program-here cannot be started" in (tmp_path / "log").read_text()


def test_supervised_environment_and_folder_reach_the_command(tmp_path):
    script = "import os; print(os.environ['LONGALIGN_X'], os.getcwd())"
    env = os.environ | {"LONGALIGN_X": "42"}
    env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    with supervised([sys.executable, "-c", script], env=env, log=tmp_path / "log", cwd=tmp_path) as process:
        assert process.wait(30) == 0
    assert (tmp_path / "log").read_text().split() == ["42", str(tmp_path)]


def test_supervised_block_left_ends_the_whole_tree(tmp_path):
    with supervised([sys.executable, "-c", TREE, str(tmp_path / "pids")], env=None, log=tmp_path / "log") as process:
        pids = pids_in(tmp_path / "pids")
    assert process.poll() is not None
    assert gone(pids)


def test_supervised_command_that_ends_takes_its_orphans_along(tmp_path):
    script = TREE.rsplit("time.sleep(600)", 1)[0]
    with supervised([sys.executable, "-c", script, str(tmp_path / "pids")], env=None, log=tmp_path / "log") as process:
        assert process.wait(30) == 0
        assert gone(pids_in(tmp_path / "pids"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_wrapper_signalled_ends_the_whole_tree(tmp_path, signum):
    command = [sys.executable, "-c", TREE, str(tmp_path / "pids")]
    with supervised(command, env=None, log=tmp_path / "log") as process:
        pids = pids_in(tmp_path / "pids")
        process.send_signal(signum)
        assert process.wait(30) != 0
        assert gone(pids)


def test_run_killed_with_sigkill_leaves_no_process(tmp_path):
    run = subprocess.Popen([sys.executable, "-c", RUN, STUBBORN_TREE, str(tmp_path / "pids"), str(tmp_path / "log")])
    pids = pids_in(tmp_path / "pids")
    wrappers = [child.pid for child in psutil.Process(run.pid).children()]
    assert wrappers
    run.kill()
    run.wait()
    wait_until(lambda: gone(pids + wrappers))


def test_wrapper_outlives_the_thread_that_started_it(tmp_path):
    # The kernel sends the death signal when the starting thread ends; the process still lives.
    entered = []
    context = supervised([sys.executable, "-c", TREE, str(tmp_path / "pids")], env=None, log=tmp_path / "log")
    thread = threading.Thread(target=lambda: entered.append(context.__enter__()))
    thread.start()
    thread.join()
    pids = pids_in(tmp_path / "pids")
    assert entered[0].poll() is None
    assert all(psutil.pid_exists(pid) for pid in pids)
    context.__exit__(None, None, None)
    assert gone(pids)
