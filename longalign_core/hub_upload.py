"""Uploading to the hub, and what goes wrong there in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from longalign_core.config.credentials import SECRET
from longalign_core.errors import HubError, InputError, LongAlignError
from longalign_core.hub_push import Push, PushOptions
from longalign_core.progress import track

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def upload(push: Push, options: PushOptions, *, bars: bool) -> str:
    """Upload in one commit, so that the repository never shows half of it; returns the commit's address.

    Files that are there already are not sent again. Names of an earlier push that are not in this one are
    removed; whatever else the repository holds stays.

    Args:
        push: What to upload.
        options: Branch and visibility.
        bars: Let the hub's library draw its bars of bytes, for a terminal.

    Raises:
        InputError: HF_TOKEN is not set.
        HubError: The hub cannot be reached or refuses, or the repository is public and must not be.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise InputError("HF_TOKEN is not set; put a token of the hub with the right to write into the environment")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not bars:
        disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    with _explained(push.hub_id):
        _make_repository(api, push, options)
        there = set(api.list_repo_files(push.hub_id, repo_type=push.kind, revision=options.branch))
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in push.files]
        with track("push", total=push.num_bytes, unit="bytes") as step:
            for addition, (name, path) in zip(additions, push.files, strict=True):
                api.preupload_lfs_files(
                    push.hub_id, [addition], repo_type=push.kind, revision=options.branch, free_memory=False
                )
                step(path.stat().st_size, name)
            stale = sorted((there & push.known) - {name for name, _ in push.files})
            commit = api.create_commit(
                push.hub_id,
                [*additions, *(CommitOperationDelete(path_in_repo=name) for name in stale)],
                commit_message=f"Push {push.address}",
                repo_type=push.kind,
                revision=options.branch,
            )
    return str(commit.commit_url)


def _make_repository(api: HfApi, push: Push, options: PushOptions) -> None:
    api.create_repo(push.hub_id, repo_type=push.kind, private=options.private or None, exist_ok=True)
    if options.private and not api.repo_info(push.hub_id, repo_type=push.kind).private:
        raise HubError(
            f"{push.hub_id} is there already and is public; make it private in its settings, or push to another name"
        )
    if options.branch != "main":
        api.create_branch(push.hub_id, branch=options.branch, repo_type=push.kind, exist_ok=True)


@contextmanager
def _explained(hub_id: str) -> Iterator[None]:
    """Turn what the hub's library raises into one sentence without a key."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it") from error
    except HfHubHTTPError as error:
        raise HubError(_refusal(hub_id, error.response.status_code, error.server_message)) from error
    except (LongAlignError, AssertionError):
        raise
    except Exception as error:  # which HTTP client it uses, and so what that raises, changes between its versions
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise HubError(_refusal(hub_id, cause.response.status_code, cause.server_message)) from error
        raise HubError(
            f"the push to {hub_id} broke off ({type(cause).__name__}: {_plain(str(cause))}); check the network and "
            "HF_ENDPOINT, then push again: files that arrived whole are not sent again"
        ) from error


def _refusal(hub_id: str, status: int, said: str | None) -> str:
    change = {
        401: "HF_TOKEN is not valid or has expired; make a new one",
        403: "give HF_TOKEN the right to write there, or push to another name",
        404: "check the id, and that HF_TOKEN may see it",
        409: "something else is changing it; push again",
        413: "a file is larger than the hub takes",
        429: "the hub is asked too often; wait and push again",
    }.get(status, "push again later" if status >= 500 else "correct what it names, then push again")
    return f"the hub refuses the push to {hub_id} (HTTP {status}{': ' + _plain(said) if said else ''}); {change}"


def _plain(text: str) -> str:
    return SECRET.sub("[key]", " ".join(text.split()))[:200].rstrip(".;")
