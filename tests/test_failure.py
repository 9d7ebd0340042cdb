"""What is said when training fails, by what each rank told and how it ended."""

from __future__ import annotations

import errno
import re

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError, TrainingError
from longalign_core.training.failure import log_cause, training_failure
from longalign_core.training.rank_reports import (
    RankFailure,
    clear_reports,
    missing_ranks,
    read_failures,
    report_failure,
    report_signal,
    report_started,
)


def failure(rank, kind, message, number=None):
    return RankFailure(rank=rank, host="node-a", kind=kind, message=message, errno=number)


PEER_GONE = failure(0, "RuntimeError", "[../gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:2481")


def settings_named_in(error):
    """The runtime's settings that a message names, each of which exists."""
    assert "runtime." not in str(error)
    names = {name.lower() for name in re.findall(r"LONGALIGN_([A-Z_]+)", str(error))}
    assert names <= set(Runtime.model_fields)
    return names


def test_training_failure_that_a_rank_named_keeps_its_class_and_words():
    error = training_failure(1, [PEER_GONE, failure(1, "DataError", "sequence 3 is odd")], "")
    assert type(error) is DataError and str(error) == "sequence 3 is odd"


def test_training_failure_out_of_gpu_memory_says_what_to_change():
    error = training_failure(1, [PEER_GONE, failure(2, "OutOfMemoryError", "Tried to allocate 2 GiB")], "")
    assert type(error) is TrainingError
    assert "rank 2 ran out of GPU memory (Tried to allocate 2 GiB)" in str(error)
    assert settings_named_in(error) >= {"gradient_checkpointing", "offload_optimizer", "zero_stage", "gpus"}


@pytest.mark.parametrize(
    "told",
    [
        failure(1, "RuntimeError", "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        failure(1, "MemoryError", ""),
    ],
)
def test_training_failure_out_of_cpu_memory_is_told_from_gpu_memory(told):
    error = training_failure(1, [PEER_GONE, told], "")
    assert "rank 1 ran out of CPU memory" in str(error)
    assert {"ranks", "offload_activations"} <= settings_named_in(error)


def test_training_failure_killed_rank_is_the_cause_of_what_the_others_lost():
    error = training_failure(1, [PEER_GONE, failure(3, "Signal", "9")], "")
    assert "rank 3 (node-a) was killed (signal 9)" in str(error)
    assert settings_named_in(error) == {"ranks"}


def test_training_failure_crash_by_another_signal_names_it():
    assert "rank 3 (node-a) was ended by signal 11 (SIGSEGV)" in str(
        training_failure(1, [failure(3, "Signal", "11")], "")
    )


@pytest.mark.parametrize("code", [247, 137])
def test_training_failure_without_word_but_killed_is_named_so(code):
    error = training_failure(code, [], "loading\n")
    assert "was killed (signal 9)" in str(error)
    assert settings_named_in(error) == {"ranks"}


def test_training_failure_missing_rank_is_named():
    told = failure(0, "DistStoreError", "Timed out after 61 seconds waiting for clients. 3/4 clients joined.")
    error = training_failure(1, [told], "", missing=[3], timeout_seconds=60)
    assert "rank 3 never joined within 60 seconds" in str(error)
    assert settings_named_in(error) == {"communication_timeout_seconds", "master_address"}


def test_training_failure_of_communication_alone_says_where_to_look():
    told = failure(
        1, "DistBackendError", "NCCL error in: ncclRemoteError: A call failed possibly due to a network error"
    )
    error = training_failure(1, [told], "", timeout_seconds=60)
    assert "rank 1 lost touch with another rank" in str(error)
    assert settings_named_in(error) == {"communication_timeout_seconds", "network_interface"}


def test_training_failure_port_in_use_names_the_setting():
    told = failure(0, "DistNetworkError", "The server socket has failed to listen (errno: 98, address already in use).")
    assert settings_named_in(training_failure(1, [told], "")) == {"master_port"}


def test_training_failure_full_disk_names_the_setting():
    told = failure(0, "OSError", "[Errno 28] No space left on device: '/x/step'", errno.ENOSPC)
    error = training_failure(1, [PEER_GONE, told], "")
    assert "found no space left" in str(error) and settings_named_in(error) == {"scratch"}


def test_training_failure_crash_names_rank_error_and_log(tmp_path):
    error = training_failure(1, [PEER_GONE, failure(1, "KeyError", "'layers'")], "", logs=tmp_path)
    assert "rank 1 failed with KeyError: 'layers'" in str(error) and str(tmp_path) in str(error)


def test_training_failure_without_word_gives_the_logs_cause():
    log = "start\nTraceback (most recent call last):\n  File x\nRuntimeError: gloo lost a peer\n[launch] exits\n"
    assert str(training_failure(1, [], log)) == "training ended with exit code 1: RuntimeError: gloo lost a peer"
    assert log_cause("\n\n") == "the log is empty"


def test_reports_say_who_started_and_why_each_failed(tmp_path):
    clear_reports(tmp_path)
    for rank in range(3):
        report_started(tmp_path, rank)
    assert read_failures(tmp_path) == []
    report_failure(tmp_path, 2, OSError(errno.ENOSPC, "No space left on device"))
    report_signal(tmp_path, 1, 9)
    assert [(one.rank, one.kind, one.errno) for one in read_failures(tmp_path)] == [
        (1, "Signal", None),
        (2, "OSError", errno.ENOSPC),
    ]
    assert missing_ranks(tmp_path, 5) == [3, 4]
    clear_reports(tmp_path)
    assert read_failures(tmp_path) == []
