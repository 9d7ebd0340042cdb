"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from longalign_core.chat_client.responses import ResponseStore
from longalign_core.chat_format import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own keys decide no test and go to no server."""
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        *(f"LONGALIGN_{role}_API_KEY" for role in ("GENERATOR", "JUDGE", "CANDIDATE")),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def responses(tmp_path: Path) -> Iterator[ResponseStore]:
    """An empty store of replies."""
    with ResponseStore(tmp_path / "replies.sqlite") as store:
        yield store


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real inputs: `LONGALIGN_TEST_DATA`, else `../shared/data` beside the checkout."""
    if named := os.environ.get("LONGALIGN_TEST_DATA"):
        folder = Path(named)
        assert folder.is_dir(), f"LONGALIGN_TEST_DATA names {folder}, which is not a folder"
        return folder
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no test data: set LONGALIGN_TEST_DATA or put ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 endpoint over HTTP on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket of it, with the environment that boto reads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"longalign-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/team"


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_url")


@pytest.fixture(scope="session")
def smol_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of SmolLM2-135M-Instruct, saved as transformers saves one."""
    from transformers import AutoTokenizer  # takes seconds, which most tests need not

    from deployments.demo.model import find_gguf

    gguf = find_gguf()
    folder = tmp_path_factory.mktemp("smol")
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smol(smol_folder: Path) -> ChatFormat:
    """Its chat format."""
    return ChatFormat.load(smol_folder)


@pytest.fixture(scope="session")
def smol_tokenizer(smol_folder: Path) -> PreTrainedTokenizerFast:
    """It itself."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smol_folder)
