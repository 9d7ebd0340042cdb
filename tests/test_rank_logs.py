"""Logs of the ranks: kept, told now and then, quoted."""

from __future__ import annotations

import logging

from longalign_core.training.rank_logs import LogRelay, rank_log, start_logs, tail


class HandClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def told(caplog):
    return [record.getMessage() for record in caplog.records]


def test_relay_tells_whole_lines_and_only_a_few_in_half_a_minute(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="longalign_core")
    clock = HandClock()
    relay = LogRelay(tmp_path, clock)
    relay.relay()
    file = tmp_path / "20261201120000_rank0.log"
    (tmp_path / "20261201120000_rank1.log").write_text("of another rank\n")
    file.write_text("loading\n\nhalf a li")
    relay.relay()
    assert told(caplog) == ["rank 0: loading"]
    with file.open("a") as stream:
        stream.write("ne\n" + "".join(f"line {number}\n" for number in range(1000)))
    relay.relay()
    assert told(caplog)[1] == "rank 0: half a line"
    assert len(told(caplog)) == 10
    clock.now += 60
    relay.relay()
    assert len(told(caplog)) == 11 and "992 more lines" in told(caplog)[-1]
    with file.open("a") as stream:
        stream.write("again\n")
    relay.relay()
    assert told(caplog)[-1] == "rank 0: again"


def test_start_logs_keeps_those_of_the_start_before(tmp_path):
    for text in ("first", "second", "third"):
        logs = start_logs(tmp_path)
        assert not list(logs.iterdir())
        (logs / "20261201120000_rank0.log").write_text(text)
    assert rank_log(logs, 0).read_text() == "third"
    assert rank_log(tmp_path / ".logs-before", 0).read_text() == "second"
    assert rank_log(logs, 1) is None


def test_tail_gives_the_last_lines_that_say_something(tmp_path):
    file = tmp_path / "log"
    file.write_text("\n".join(f"line {number}" for number in range(5_000)) + "\n\n\n")
    assert tail(file, 3) == ["line 4997", "line 4998", "line 4999"]
    file.write_text("")
    assert tail(file, 3) == []
