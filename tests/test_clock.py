"""The clocks that time a rank's own work."""

from __future__ import annotations

import time

import pytest
import torch

from longalign_core.training.clock import clock_of


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_thread_clock_counts_work_and_not_waiting():
    clock = clock_of(torch.device("cpu"))
    clock.start()
    busy(0.05)
    clock.turn()
    time.sleep(0.2)  # stands for a message that is waited for
    busy(0.05)
    clock.stop()
    part, whole = clock.take()
    assert part == whole and 0.1 <= whole[0] < 0.2
    assert clock.take() == ([], [])


@pytest.mark.gpu
def test_cuda_clock_times_each_pass_on_the_device():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    clock, matrix = clock_of(torch.device("cuda")), torch.randn(4096, 4096, device="cuda")

    def passes(count):
        for _ in range(count):
            matrix @ matrix

    passes(3)
    for _ in range(2):
        clock.start()
        passes(10)
        clock.turn()
        passes(20)
        clock.stop()
    part, whole = clock.take()
    assert len(part) == len(whole) == 2
    assert all(2 < whole_one / part_one < 4 for part_one, whole_one in zip(part, whole, strict=True))
