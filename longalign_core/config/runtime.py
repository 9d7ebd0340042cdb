"""Where and how a recipe is carried out. Nothing here enters an address."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_QUERY = ("key", "token", "secret", "password", "signature", "sig")


class Runtime(BaseSettings):
    """Settings of one machine or run, from `LONGALIGN_*` variables, options and flow parameters.

    API keys are not among them: they are read from the environment at the moment of a call, as
    `LONGALIGN_<ROLE>_API_KEY` (role: generator, judge, candidate), else `OPENAI_API_KEY`.
    """

    model_config = SettingsConfigDict(env_prefix="LONGALIGN_", extra="ignore", frozen=True, hide_input_in_errors=True)

    store: str = Field(default=".longalign/store", description="Folder or s3://bucket/prefix of the artifacts.")
    scratch: Path = Field(
        default=Path(".longalign/scratch"),
        description="Local folder for unfinished work, fetched artifacts and stored model replies.",
    )
    gpus: int = Field(default=0, ge=0, description="GPUs for training on this machine; 0 trains on the CPU.")
    ranks: int = Field(
        default=2,
        ge=1,
        description="Training processes when there is no GPU; with GPUs, one process a GPU.",
    )
    workers: int = Field(default=2, ge=1, description="Corpora read, and texts encoded, at the same time.")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=2, description="DeepSpeed ZeRO stage.")
    offload: bool = Field(default=False, description="Keep optimizer state in CPU memory (ZeRO 2 and 3).")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    checkpoint_interval: int = Field(
        default=50, ge=1, description="Optimizer steps between resume points of a training run."
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description='Base URLs of OpenAI-compatible servers by role, as JSON: {"generator": "http://…/v1", "judge": …}.'
        " A role without one is served here when its model is a local folder.",
    )
    max_in_flight: int = Field(default=16, ge=1, description="Model calls under way at once, per role.")
    request_timeout_seconds: float = Field(default=600, gt=0, description="Longest wait for one model reply.")
    max_retries: int = Field(default=5, ge=0, description="Further tries of a call that failed for a passing reason.")
    serve_start_seconds: float = Field(default=300, gt=0, description="Longest wait for a local model server to start.")

    @field_validator("endpoints")
    @classmethod
    def _no_secret_in_endpoint(cls, endpoints: dict[str, str]) -> dict[str, str]:
        for role, url in endpoints.items():
            refuse_secret_in_url(url, f"the endpoint of {role!r}")
            if urlsplit(url).scheme not in ("http", "https"):
                raise ValueError(
                    f"the endpoint of {role!r} is not an http(s) URL; give one like http://127.0.0.1:8000/v1"
                )
        return endpoints

    @field_validator("store")
    @classmethod
    def _no_secret_in_store(cls, store: str) -> str:
        refuse_secret_in_url(store, "the store")
        return store


def refuse_secret_in_url(url: str, what: str) -> None:
    """Refuse a URL that carries credentials, without repeating it.

    Raises:
        ValueError: The URL has a user part or a query parameter that looks like a credential.
    """
    parts = urlsplit(url)
    names = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if "@" in parts.netloc or any(secret in name for name in names for secret in SECRET_QUERY):
        raise ValueError(
            f"{what} carries a secret inside its URL; give the URL without it and put the key into the "
            "environment (LONGALIGN_<ROLE>_API_KEY for models, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)"
        )
