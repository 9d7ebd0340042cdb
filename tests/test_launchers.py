"""Several machines: the hostfile, the settings that belong together, what reaches the other machines."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.training.launchers import check_launcher, nodes_command, read_hostfile, shared_environment
from tests import fake_hosts


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(fake_hosts.install(tmp_path)))


def hostfile(tmp_path, text):
    file = tmp_path / "hostfile"
    file.write_text(text)
    return file


def test_read_hostfile_gives_hosts_in_order_without_comments(tmp_path):
    file = hostfile(tmp_path, "# pool\nnode-b slots=8\n\nnode-a.example slots=4  # old\n10.0.0.7   slots=1\n")
    assert list(read_hostfile(file).items()) == [("node-b", 8), ("node-a.example", 4), ("10.0.0.7", 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node-a slots=2\nnode-b\n", r"line 2 of .* is not `name slots=N`: 'node-b'"),
        ("node-a slots=0\n", "line 1"),
        ("node-a slots=2\nnode-a slots=2\n", "line 2 of .* names a host twice"),
        ("-oProxyCommand=x; slots=2\n", "line 1"),
    ],
)
def test_read_hostfile_bad_line_is_named(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_hostfile(hostfile(tmp_path, text))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nodes": 2}, "LONGALIGN_LAUNCHER=local starts one machine; set LONGALIGN_LAUNCHER to pdsh"),
        ({"launcher": "pdsh", "nodes": 2}, "pdsh needs LONGALIGN_HOSTFILE"),
        ({"launcher": "openmpi", "nodes": 2, "hostfile": Path("/no/such")}, "/no/such is no file"),
        ({"launcher": "pdsh", "nodes": 3}, "LONGALIGN_NODES is 3 but .* lists 2 hosts"),
        ({"launcher": "pdsh", "nodes": 2, "ranks": 4}, "node-a has slots=2 .* but LONGALIGN_RANKS is 4"),
        ({"launcher": "pdsh", "nodes": 2, "gpus": 8}, "node-a has slots=2 .* but LONGALIGN_GPUS is 8"),
    ],
)
def test_check_launcher_settings_that_do_not_agree_are_refused(programs, tmp_path, settings, said):
    if settings.get("nodes") == 3 or {"ranks", "gpus"} & set(settings):
        settings = settings | {"hostfile": hostfile(tmp_path, "node-a slots=2\nnode-b slots=2\n")}
    with pytest.raises(InputError, match=said):
        check_launcher(Runtime(**settings))


def test_check_launcher_program_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="LONGALIGN_LAUNCHER=slurm starts `srun`, which is not on the PATH"):
        check_launcher(Runtime(launcher="slurm", nodes=2))


def test_shared_environment_holds_what_training_needs_and_no_keys():
    shared = shared_environment(
        {
            "NCCL_DEBUG": "INFO",
            "OMP_NUM_THREADS": "8",
            "PATH": "/bin",
            "HF_HOME": "/shared/hf",
            "HF_TOKEN": "secret",
            "OPENAI_API_KEY": "secret",
            "DS_SECRET": "secret",
            "MLFLOW_TRACKING_PASSWORD": "secret",
            "CUDA_VISIBLE_DEVICES": "0",
            "HOME": "/home/me",
        },
        "ib0",
    )
    assert shared == {
        "NCCL_DEBUG": "INFO",
        "OMP_NUM_THREADS": "8",
        "PATH": "/bin",
        "HF_HOME": "/shared/hf",
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "ib0",
    }


def test_nodes_command_pdsh_quotes_what_the_remote_shell_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a path:/b")
    runtime = Runtime(launcher="pdsh", nodes=2, launcher_arguments="-l 'the user'")
    folder = tmp_path / "a folder"
    command = nodes_command(runtime, ("node-a", "node-b"), folder / "start.json", folder)
    assert command[command.index("-w") + 1] == "node-a,node-b"
    assert command[command.index("-l") + 1] == "the user"
    remote = shlex.split(command[-1])
    assert remote[:3] == ["cd", str(folder), "&&"]
    assert remote[3:6] == ["PYTHONPATH=/a path:/b", "exec", sys.executable]
    assert remote[-3:] == [str(folder / "start.json"), "--node", "%n"]


def test_nodes_command_slurm_starts_one_task_a_machine_with_its_gpus(tmp_path):
    runtime = Runtime(launcher="slurm", nodes=4, gpus=8, launcher_arguments="--partition=long --time=2-0")
    command = nodes_command(runtime, (), tmp_path / "start.json", tmp_path)
    options = command[: command.index(sys.executable)]
    assert {"--ntasks-per-node=1", "--gpus-per-node=8", "--partition=long", "--time=2-0"} <= set(options)
    assert options[options.index("--nodes") + 1] == "4"


def test_nodes_command_openmpi_passes_variables_by_name_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    runtime = Runtime(launcher="openmpi", nodes=2, hostfile=tmp_path / "hostfile")
    command = nodes_command(runtime, ("a", "b"), tmp_path / "start.json", tmp_path)
    assert command[command.index("PYTHONPATH") - 1] == "-x"
    assert not any("/some/where" in part for part in command)
    assert command[command.index("--map-by") + 1] == "ppr:1:node"
