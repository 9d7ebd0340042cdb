from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import EndpointError, InputError
from longalign_core.serving import calls_in_flight, endpoint_for, serve_command, served
from tests.tiny_model import tiny_model


def runtime(folder: Path, **settings) -> Runtime:
    return Runtime(scratch=folder / "scratch", endpoints=settings.pop("endpoints", {}), **settings)


def test_endpoint_named_by_the_runtime_is_used_as_it_is(tmp_path):
    given = runtime(tmp_path, endpoints={"judge": "http://127.0.0.1:9/v1"})
    with endpoint_for("judge", ChatModel(model="gpt-4", checkpoint="/nowhere"), given) as endpoint:
        assert (endpoint.base_url, endpoint.role) == ("http://127.0.0.1:9/v1", "judge")


def test_endpoint_neither_named_nor_local_says_both_ways(tmp_path):
    with pytest.raises(EndpointError, match=r"LONGALIGN_ENDPOINTS.*checkpoint"):
        endpoint_for("judge", ChatModel(model="gpt-4"), runtime(tmp_path))


@pytest.mark.parametrize("name", ["../elsewhere", "/absolute", "a/b/c", "name@revision", "two words", ""])
def test_served_name_unlike_a_hub_id_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="hub id"), served(tmp_path, name, "judge", runtime(tmp_path)):
        pass


def test_served_folder_without_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"), served(tmp_path, "m", "judge", runtime(tmp_path)):
        pass


def test_calls_in_flight_own_server_gets_few_and_a_named_one_all(tmp_path):
    settings = runtime(tmp_path, endpoints={"judge": "http://127.0.0.1:9/v1"}, max_in_flight=32)
    assert calls_in_flight("judge", settings) == 32
    assert calls_in_flight("candidate", settings) <= 32


@pytest.mark.parametrize(("gpus", "parallel"), [(0, "1"), (1, "1"), (2, "2"), (3, "2"), (8, "8")])
def test_vllm_command_takes_a_power_of_two_of_the_gpus(gpus, parallel):
    command = serve_command(Path("snapshot"), "org/name", 1234, gpus=gpus, vllm=True)
    assert command[command.index("--tensor-parallel-size") + 1] == parallel
    assert command[command.index("--served-model-name") + 1] == "org/name"


@pytest.mark.slow
def test_served_tiny_model_answers_under_its_name_and_ends_with_the_block(tmp_path):
    tiny_model(tmp_path / "weights")
    with served(tmp_path / "weights", "org/tiny", "candidate", runtime(tmp_path)) as endpoint:
        with httpx.Client(base_url=endpoint.base_url, timeout=60, trust_env=False) as client:
            names = [model["id"] for model in client.get("/models").json()["data"]]
            greedy = [ask(client, temperature=0.0, seed=seed) for seed in (0, 1)]
            drawn = [ask(client, temperature=1.0, seed=seed) for seed in (0, 0, 1)]
        base_url = endpoint.base_url
    assert names == ["org/tiny"]
    assert greedy[0]["choices"] == greedy[1]["choices"]
    assert drawn[0]["choices"] == drawn[1]["choices"] != drawn[2]["choices"]
    assert greedy[0]["usage"]["prompt_tokens"] > 0
    assert greedy[0]["usage"]["completion_tokens"] <= 8
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base_url}/models", trust_env=False)


@pytest.mark.slow
def test_served_broken_weights_end_with_the_servers_own_words(tmp_path):
    folder = tiny_model(tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with (
        pytest.raises(EndpointError, match=r"ended before it answered: .*[Ee]rror.*"),
        served(folder, "broken", "judge", runtime(tmp_path)),
    ):
        pass


def ask(client: httpx.Client, **sampling) -> dict:
    messages = [{"role": "user", "content": "What does the second chapter say?"}]
    body = {"model": "org/tiny", "messages": messages, "max_tokens": 8, **sampling}
    return client.post("/chat/completions", json=body).raise_for_status().json()
