"""Start and stop a local model server, so that a folder of weights is one more OpenAI-compatible endpoint.

vLLM where it is installed, else `transformers serve`. The server knows the model by the name that
requests carry, never by a path: it is given a throw-away model cache in which that name leads to
links to the folder's files, and one file of our own, the sampling defaults.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from subprocess import Popen
from typing import cast

import httpx

from longalign_core.chat_client import Endpoint
from longalign_core.chat_client.calls import Api
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime, split_endpoint
from longalign_core.errors import EndpointError, InputError
from longalign_core.supervise import supervised

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_REVISION = "0" * 40
_POLL_SECONDS = 0.2
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# `transformers serve` generates one reply at a time: more calls would only wait there, and time out.
_CALLS_OF_SIMPLE_SERVER = 2


def endpoint_for(role: str, model: ChatModel, runtime: Runtime) -> AbstractContextManager[Endpoint]:
    """The endpoint of a role: the one the runtime names, else the model's own weights served here.

    Args:
        role: "generator" or "judge"; also which API key is used.
        model: Its `checkpoint` is the local folder to serve, absolute.
        runtime: Endpoints by role, GPUs, scratch folder and patience.

    Returns:
        A context; a server that was started for it ends with it.

    Raises:
        EndpointError: Neither is there, or (on entering) the server does not come up.
    """
    if endpoint := named_endpoint(role, runtime):
        return nullcontext(endpoint)
    if model.checkpoint is None:
        raise EndpointError(
            f"no endpoint for the {role} {model.model!r}; give its URL "
            f'(LONGALIGN_ENDPOINTS={{"{role}": "http://host:port/v1"}}), or name a local folder of weights as its '
            "`checkpoint` in the recipe and it is served here"
        )
    return served(Path(model.checkpoint), model.model, role, runtime)


def named_endpoint(role: str, runtime: Runtime) -> Endpoint | None:
    """The endpoint that the runtime names for a role; None when it names none."""
    if role not in runtime.endpoints:
        return None
    api, url = split_endpoint(runtime.endpoints[role], role)
    return Endpoint(url, role, cast(Api, api))


def calls_in_flight(role: str, runtime: Runtime) -> int:
    """How many calls a role's endpoint is worth sending at once."""
    if role in runtime.endpoints or has_vllm():
        return runtime.max_in_flight
    return min(runtime.max_in_flight, _CALLS_OF_SIMPLE_SERVER)


def has_vllm() -> bool:
    """Whether vLLM is installed beside this interpreter."""
    return importlib.util.find_spec("vllm") is not None


@contextmanager
def served(folder: Path, model_name: str, role: str, runtime: Runtime) -> Iterator[Endpoint]:
    """Serve a folder of weights on loopback for as long as the block runs.

    Args:
        folder: What `AutoModelForCausalLM.from_pretrained` loads, with tokenizer and chat template.
        model_name: What requests call it; in the form of a hub id.
        role: Role of the endpoint.
        runtime: GPUs, scratch folder and patience.

    Yields:
        The endpoint, answering.

    Raises:
        InputError: The folder holds no model, or the name has not the form of a hub id.
        EndpointError: The server ended or did not answer in time; its last telling line is in the message.
    """
    if not _NAME.fullmatch(model_name):
        raise InputError(
            f"the {role} is served here as {model_name!r}; such a name takes letters, digits, '.', '_', '-' and at "
            "most one '/', as a hub id does: change `model` in the recipe"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json, so no model to serve as {role}; name a folder of weights")
    log_folder = runtime.scratch.absolute() / "logs"
    log_folder.mkdir(parents=True, exist_ok=True)
    log_file = log_folder / f"serve-{role}-{os.getpid()}-{time.time_ns():x}.log"
    with tempfile.TemporaryDirectory(prefix="longalign-serve-", ignore_cleanup_errors=True) as workplace:
        snapshot = _lay_out(folder.absolute(), model_name, Path(workplace))
        port = _free_port()
        command = serve_command(snapshot, model_name, port, gpus=runtime.gpus, vllm=has_vllm())
        log.info("serving %s as %s on port %d", role, model_name, port)
        environment = _environment(Path(workplace))
        with supervised(command, env=environment, log=log_file) as process:
            _wait_until_ready(process, port, model_name, role, log_file, runtime.serve_start_seconds)
            yield Endpoint(f"http://127.0.0.1:{port}/v1", role)


def serve_command(snapshot: Path, model_name: str, port: int, *, gpus: int, vllm: bool) -> list[str]:
    """The command line of a server.

    Args:
        snapshot: Folder with the weights and the sampling defaults.
        model_name: What requests call the model; `transformers serve` finds it in its cache by this name.
        port: On 127.0.0.1.
        gpus: 0 computes on the CPU, in fp32: bf16 is many times slower there.
        vllm: Whether to use vLLM.
    """
    if vllm:
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(snapshot)]
        command += ["--served-model-name", model_name, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--generation-config", str(snapshot)]
        # Attention heads divide by powers of two, not by three or five.
        return [*command, "--tensor-parallel-size", str(1 << max(gpus.bit_length() - 1, 0))]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model_name]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--device", "auto" if gpus else "cpu", "--dtype", "auto" if gpus else "float32"]


def _lay_out(folder: Path, model_name: str, workplace: Path) -> Path:
    """A hub cache in which `model_name` is the folder: the server loads it, and lists it, by that name."""
    repository = workplace / "hub" / f"models--{model_name.replace('/', '--')}"
    snapshot = repository / "snapshots" / _REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_REVISION)
    for file in folder.iterdir():
        if file.is_file() and file.name != "generation_config.json":
            (snapshot / file.name).symlink_to(file)
    defaults = _sampling_defaults(folder)
    (snapshot / "generation_config.json").write_text(json.dumps(defaults), encoding="utf-8")
    return snapshot


def _sampling_defaults(folder: Path) -> dict[str, object]:
    """Sample exactly as a request says.

    `transformers serve` ignores a request's temperature unless the model's own defaults turn sampling
    on, and both servers would add the model's top-k and penalties, which a recipe does not show.
    """
    named: dict[str, object] = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            values = json.loads((folder / name).read_text(encoding="utf-8"))
            named |= {key: values[key] for key in _TOKEN_IDS if values.get(key) is not None}
    return {**named, "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}


def _environment(workplace: Path) -> dict[str, str]:
    num_threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return {
        "OMP_NUM_THREADS": num_threads,
        **os.environ,
        "HF_HUB_CACHE": str(workplace / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(
    process: Popen[bytes], port: int, model_name: str, role: str, log_file: Path, patience: float
) -> None:
    deadline = time.monotonic() + patience
    # A proxy from the environment must not stand between us and loopback.
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EndpointError(
                    f"the server of the {role} {model_name!r} ended before it answered: {_telling_line(log_file)}; "
                    f"all of its words are in {log_file}"
                )
            if _is_ready(client, model_name):
                return
            time.sleep(_POLL_SECONDS)
    raise EndpointError(
        f"the server of the {role} {model_name!r} did not answer within {patience:g} s (its last words: "
        f"{_telling_line(log_file)}); raise LONGALIGN_SERVE_START_SECONDS or serve it elsewhere and give its URL"
    )


def _is_ready(client: httpx.Client, model_name: str) -> bool:
    """Healthy, and ours: another program may have taken the port in the meantime."""
    try:
        if client.get("/health").status_code != 200:
            return False
        listed: Mapping[str, list[dict[str, str]]] = client.get("/v1/models").raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return False
    return any(model.get("id") == model_name for model in listed.get("data", ()))


def _telling_line(log_file: Path) -> str:
    """The last line that names an error, else the last line."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file.exists() else []
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if re.search(r"error|exception", line, re.IGNORECASE)]
    return (errors or spoken or ["it said nothing"])[-1][:300]
