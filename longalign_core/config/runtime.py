"""Where and how a recipe is carried out. Nothing here enters an address."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from longalign_core.config.credentials import refuse_secret_in_url

ROLES = ("generator", "judge", "candidate")
PROVIDERS = ("openai", "openai-responses", "anthropic")


class Runtime(BaseSettings):
    """Settings of one machine or run, from `LONGALIGN_*` variables, options and flow parameters.

    API keys are not among them: they are read from the environment at the moment of a call, as
    `LONGALIGN_<ROLE>_API_KEY` (role: generator, judge, candidate), else `ANTHROPIC_API_KEY` where the
    endpoint is Anthropic's and `OPENAI_API_KEY` everywhere else.
    """

    model_config = SettingsConfigDict(env_prefix="LONGALIGN_", extra="ignore", frozen=True, hide_input_in_errors=True)

    store: str = Field(default=".longalign/store", description="Folder or s3://bucket/prefix of the artifacts.")
    scratch: Path = Field(
        default=Path(".longalign/scratch"),
        description="Local folder for unfinished work, fetched artifacts and stored model replies.",
    )
    engine: Literal["local", "dask", "ray"] = Field(
        default="local",
        description="Who works on the shards of a corpus: processes of this machine, or a Dask or Ray cluster through "
        "Prefect's task runners (in a flow run only; its workers must see the scratch folder).",
    )
    engine_address: str | None = Field(
        default=None, description="Scheduler of a running cluster (tcp://host:8786); null starts one on this machine."
    )
    gpus: int = Field(default=0, ge=0, description="GPUs for training on each machine; 0 trains on the CPU.")
    ranks: int = Field(
        default=2,
        ge=1,
        description="Training processes on each machine when there is no GPU; with GPUs, one process a GPU.",
    )
    nodes: int = Field(default=1, ge=1, description="Machines to train on; more than one needs a launcher.")
    launcher: Literal["local", "pdsh", "openmpi", "slurm"] = Field(
        default="local",
        description="Who starts training: this machine for itself, pdsh over ssh or mpirun on the hosts of a hostfile, "
        "or srun. The scratch folder must then be shared by all machines.",
    )
    hostfile: Path | None = Field(
        default=None, description="Hosts to train on, one `name slots=N` a line, for pdsh and openmpi."
    )
    launcher_arguments: str = Field(
        default="", description="Further arguments of pdsh, mpirun or srun, as one would type them. No secrets."
    )
    master_address: str | None = Field(
        default=None, description="Address at which ranks find rank 0; null takes the first machine's name."
    )
    master_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port at which ranks find rank 0; null takes a free one."
    )
    network_interface: str | None = Field(
        default=None, description="Network interface between machines (eth0, ib0); null leaves it to NCCL and gloo."
    )
    communication_timeout_seconds: float = Field(
        default=600, gt=0, description="So long ranks wait for one that does not join, or does not answer."
    )
    stall_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Training without a step for so long, the start included, is ended; null waits for ever.",
    )
    workers: int = Field(default=2, ge=1, description="Corpora read, and texts encoded, at the same time.")
    sequence_parallel: int = Field(
        default=1,
        ge=1,
        description="Processes that share one pack (Ulysses), for packs that do not fit one GPU; their number divides "
        "the processes of all machines, and the model's attention heads.",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(default=2, description="DeepSpeed ZeRO stage.")
    offload_optimizer: Literal["none", "cpu", "nvme"] = Field(
        default="none", description="Where GPUs keep the optimizer's state: cpu from ZeRO 1 on, nvme under ZeRO 3."
    )
    offload_parameters: Literal["none", "cpu", "nvme"] = Field(
        default="none", description="Where GPUs keep parameters that are not in use, under ZeRO 3."
    )
    offload_folder: Path | None = Field(
        default=None, description="Folder on an NVMe disk of each machine, for what is offloaded to nvme."
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    offload_activations: bool = Field(
        default=False, description="Keep what gradient checkpointing keeps of the activations in CPU memory."
    )
    checkpoint_interval: int = Field(
        default=50, ge=1, description="Optimizer steps between resume points of a training run."
    )
    checkpoint_minutes: float | None = Field(
        default=30, gt=0, description="Most minutes between them, where steps are long; null for no such limit."
    )
    kept_resume_points: int = Field(default=2, ge=1, description="Resume points kept; older ones are removed.")
    copy_resume_points: bool = Field(
        default=False,
        description="Copy the newest resume point to the store in the background, for machines whose disks vanish. A "
        "copy that is ahead of the scratch folder is always used.",
    )
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        default=("tensorboard",),
        description='Where the curves of a training run go beside metrics.jsonl, as JSON: ["tensorboard", "wandb", '
        '"mlflow"]. Addresses and keys of the latter two are read from their own variables (WANDB_*, MLFLOW_*).',
    )
    peak_tflops: float | None = Field(
        default=None,
        gt=0,
        description="What one GPU can do in the training's precision, in 10^12 FLOPs a second, for the model FLOPs "
        "utilisation; null for what is known of it.",
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description='Where models are asked, by role, as JSON: {"generator": "http://…/v1", "judge": "anthropic"}. '
        "A URL is an OpenAI-compatible server; openai, openai-responses and anthropic are the providers' own, at "
        "another address as anthropic+https://…. A role without one is served here when its model is a local folder.",
    )
    generator_calls: Literal["online", "batch"] = Field(
        default="online",
        description="How the generator is asked: call by call, or through the provider's batch interface, which is "
        "cheaper and may take a day: the run submits, ends, and a later run collects.",
    )
    batch_wait_seconds: float = Field(
        default=0, ge=0, description="So long a run waits for submitted batches before it leaves them to a later run."
    )
    budget_dollars: float | None = Field(
        default=None,
        ge=0,
        description="Most that the model calls of one product (one address of instruct or evaluate) may cost, over all "
        "runs; needs the model's price. null for no cap.",
    )
    budget_tokens: int | None = Field(
        default=None, ge=0, description="The same in tokens, prompts and replies together. null for no cap."
    )
    prices: Path | None = Field(
        default=None, description="Price file (YAML) that replaces the one that comes with the package."
    )
    max_in_flight: int = Field(default=16, ge=1, description="Most model calls under way at once, per role.")
    request_timeout_seconds: float = Field(default=600, gt=0, description="Longest wait for one model reply.")
    max_retries: int = Field(default=5, ge=0, description="Further tries of a call that failed for a passing reason.")
    serve_start_seconds: float = Field(default=300, gt=0, description="Longest wait for a local model server to start.")

    @field_validator("endpoints")
    @classmethod
    def _no_secret_in_endpoint(cls, endpoints: dict[str, str]) -> dict[str, str]:
        for role, url in endpoints.items():
            if role not in ROLES:
                raise ValueError(f"there is no role {role!r}; endpoints are given for {', '.join(ROLES)}")
            refuse_secret_in_url(url, f"the endpoint of {role!r}")
            split_endpoint(url, role)
        return endpoints

    @field_validator("store")
    @classmethod
    def _no_secret_in_store(cls, store: str) -> str:
        refuse_secret_in_url(store, "the store")
        return store


def split_endpoint(endpoint: str, role: str) -> tuple[str, str | None]:
    """The interface and the URL that an endpoint's setting names; the URL is None for a provider's own.

    Raises:
        ValueError: It names neither a provider nor an http(s) URL.
    """
    api, plus, url = endpoint.partition("+")
    if api not in PROVIDERS:
        api, url = "compatible", endpoint
    elif not plus:
        return api, None
    if not _is_http_url(url):
        raise ValueError(
            f"the endpoint of {role!r} is neither a provider ({', '.join(PROVIDERS)}) nor an http(s) URL; "
            "give one like http://127.0.0.1:8000/v1 or anthropic+https://gateway.example"
        )
    return api, url


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or beyond 65535
        return False
