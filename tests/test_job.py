"""Events between the training processes and the one that launched them."""

from __future__ import annotations

from longalign_core.training.job import EventReader, EventWriter
from longalign_core.training.launch import read_metrics
from longalign_core.training.metrics import StepMetrics


def metrics(step, loss):
    return StepMetrics(
        step=step,
        loss=loss,
        token_loss=loss,
        bucket_losses=(loss, None),
        learning_rate=1e-3,
        grad_norm=1.0,
        seconds=0.5,
        tokens=100,
        target_tokens=50,
        num_sequences=3,
    )


def test_event_reader_gives_each_event_once_and_no_unfinished_line(tmp_path):
    file = tmp_path / "events"
    reader = EventReader(file)
    assert list(reader.new()) == []
    writer = EventWriter(file)
    writer.model(3)
    assert list(reader.new()) == [{"event": "model", "step": 3}]
    with file.open("ab") as stream:
        stream.write(b'{"event": "mod')
    assert list(reader.new()) == []
    # The process died in the middle of a line; the next one goes on after it.
    EventWriter(file).model(4)
    assert list(reader.new()) == [{"event": "model", "step": 4}]


def test_read_metrics_step_done_again_after_a_kill_counts_once(tmp_path):
    writer = EventWriter(tmp_path / ".events.jsonl")
    for step, loss in ((1, 9.0), (2, 8.0), (3, 7.0), (2, 8.5), (3, 7.5), (4, 6.0)):
        writer.step(metrics(step, loss))
        writer.model(step)
    assert read_metrics(tmp_path) == [metrics(1, 9.0), metrics(2, 8.5), metrics(3, 7.5), metrics(4, 6.0)]
