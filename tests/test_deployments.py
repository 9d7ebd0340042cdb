"""What `prefect.yaml` deploys: flows that load, with parameters that they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from longalign_core.config.loading import load_recipe

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
CONTRACT = {"longalign/full", "dataset/weekly", "train/manual", "evaluate/on-checkpoint", "watch/checkpoints"}
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[one["name"] for one in DEPLOYMENTS])


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    # With a colon Prefect would take the entrypoint for a file and put its folder first on sys.path.
    assert ":" not in deployment["entrypoint"]
    return load_flow_from_entrypoint(deployment["entrypoint"])


def test_deployments_have_the_names_of_the_contract():
    names = [f"{flow_of(one).name}/{one['name']}" for one in DEPLOYMENTS]
    assert len(names) == len(set(names))
    assert CONTRACT - {"watch/checkpoints"} <= set(names) <= CONTRACT


@each_deployment
def test_deployment_parameters_are_those_of_its_flow(deployment):
    flow, parameters = flow_of(deployment), deployment["parameters"]
    assert flow.validate_parameters(parameters).items() >= parameters.items()
    # A worker fills in nothing else: every other parameter has a default.
    assert set(flow.parameters.required) <= set(parameters)


@each_deployment
def test_deployment_recipe_is_one_that_loads(deployment):
    load_recipe(REPOSITORY / deployment["parameters"]["recipe"], [])


@each_deployment
def test_deployment_schedules_parse_and_start_nothing_unasked(deployment):
    for schedule in deployment.get("schedules", []):
        assert schedule["active"] is False
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])


@each_deployment
def test_deployment_runs_one_at_a_time_in_the_pool(deployment):
    limit = ConcurrencyLimitConfig(**deployment["concurrency_limit"])
    assert (limit.limit, limit.collision_strategy.value) == (1, "ENQUEUE")
    assert set(deployment["concurrency_limit"]) <= set(ConcurrencyLimitConfig.model_fields)
    assert deployment["work_pool"]["name"] == "longalign"
