from __future__ import annotations

import json
import shutil

import pytest

from longalign_core.errors import EndpointError
from longalign_core.record_files import read_records
from longalign_core.records import Answer, Verdict
from longalign_core.stages.evaluation import evaluate
from tests.evaluation_inputs import longbench_chat_config, needle_config, runtime, suite_run
from tests.fake_chat_server import FakeChatServer, Fault, error_body
from tests.tiny_model import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("checkpoint"))


def run(config, checkpoint, folder, settings):
    out_dir = folder / "out"
    out_dir.mkdir(exist_ok=True)
    counts = evaluate.function(config, {"checkpoint": (checkpoint,)}, out_dir, settings)
    answers = list(read_records(out_dir / "answers.parquet", Answer))
    verdicts = list(read_records(out_dir / "verdicts.parquet", Verdict))
    return counts, answers, verdicts, json.loads((out_dir / "suite.json").read_text())


def prompt_of(body):
    return body["messages"][-1]["content"]


def test_evaluate_judged_suite_keeps_newlines_and_averages_repeats(tmp_path, checkpoint):
    def judge(body):
        return "[[8]]" if body["seed"] == 0 else "fair\n[[6]]"

    with FakeChatServer(lambda body: "First.\nSecond.\n\n- third") as candidate, FakeChatServer(judge) as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        config = suite_run(longbench_chat_config(tmp_path / "suite"))
        counts, answers, verdicts, description = run(config, checkpoint, tmp_path, settings)
    assert counts == {"questions": 3, "answered": 3, "unscored": 0, "mean_score": 7.0}
    assert [answer.reply for answer in answers] == ["First.\nSecond.\n\n- third"] * 3
    assert all("\nFirst.\nSecond.\n\n- third\n" in prompt_of(body) for body in judging.requests)
    assert not any("it rained" in prompt_of(body) for body in judging.requests)
    assert sorted((v.question_id, v.repeat, v.score) for v in verdicts) == [
        (str(idx), repeat, score) for idx in (1, 2, 3) for repeat, score in ((0, 8.0), (1, 6.0))
    ]
    assert description["num_questions"] == 3
    assert description["scale"] == {"minimum": 1, "maximum": 10, "higher_is_better": True}
    assert str(tmp_path) not in json.dumps(description)


def test_evaluate_asks_the_longest_document_first(tmp_path, checkpoint):
    with FakeChatServer(lambda body: "[[5]]") as server:
        settings = runtime(tmp_path, candidate=server.url, judge=server.url).model_copy(update={"max_in_flight": 1})
        run(suite_run(longbench_chat_config(tmp_path / "suite")), checkpoint, tmp_path, settings)
    asked = [prompt_of(body) for body in server.requests if body["model"].startswith("candidate-")]
    assert [len(prompt) for prompt in asked] == sorted(map(len, asked), reverse=True)


def test_evaluate_judge_without_verdict_is_asked_once_more_then_unscored(tmp_path, checkpoint):
    with FakeChatServer(lambda body: "an answer") as candidate, FakeChatServer(lambda body: "very good!") as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        config = suite_run(longbench_chat_config(tmp_path / "suite", num_questions=1, repeats=1))
        counts, _, verdicts, _ = run(config, checkpoint, tmp_path, settings)
    assert counts == {"questions": 1, "answered": 1, "unscored": 1}
    assert [(v.score, v.unscored, v.reply) for v in verdicts] == [(None, "no verdict", "very good!")]
    first, second = judging.requests
    assert first != second


def test_evaluate_judge_that_recovers_when_asked_again_is_scored(tmp_path, checkpoint):
    def judge(body):
        return "[[11]]" if body["seed"] < 2 else "[[4]]"

    with FakeChatServer(lambda body: "an answer") as candidate, FakeChatServer(judge) as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        counts, _, verdicts, _ = run(
            suite_run(longbench_chat_config(tmp_path / "suite")), checkpoint, tmp_path, settings
        )
    assert counts["mean_score"] == 4.0
    assert {v.score for v in verdicts} == {4.0}


def test_evaluate_failed_answer_is_unscored_and_not_judged(tmp_path, checkpoint):
    def answer(body):
        refused = Fault(status=400, body=error_body("too long", "context_length_exceeded"))
        return refused if "year 2?" in prompt_of(body) else "an answer"

    with FakeChatServer(answer) as candidate, FakeChatServer(lambda body: "[[3]]") as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        counts, answers, verdicts, _ = run(
            suite_run(longbench_chat_config(tmp_path / "suite")), checkpoint, tmp_path, settings
        )
    assert counts == {"questions": 3, "answered": 2, "unscored": 1, "mean_score": 3.0}
    (failed,) = (answer for answer in answers if answer.reply is None)
    assert failed.question_id == "2"
    assert failed.error
    assert all(v.score is None and v.unscored.startswith("no answer") for v in verdicts if v.question_id == "2")
    assert len(judging.requests) == 4


def test_evaluate_run_again_after_a_failing_judge_repeats_no_answered_call(tmp_path, checkpoint):
    with FakeChatServer(lambda body: "an answer") as candidate:
        config = suite_run(longbench_chat_config(tmp_path / "suite"))
        with FakeChatServer(lambda body: "[[3]]", api_key="another") as judging, pytest.raises(EndpointError):
            run(config, checkpoint, tmp_path, runtime(tmp_path, candidate=candidate.url, judge=judging.url))
        num_asked = len(candidate.requests)
        with FakeChatServer(lambda body: "[[3]]") as judging:
            settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
            first = run(config, checkpoint, tmp_path, settings)
            num_judged = len(judging.requests)
            second = run(config, checkpoint, tmp_path, settings)
            assert (len(candidate.requests), len(judging.requests)) == (num_asked, num_judged) == (3, 6)
    assert first == second


def test_evaluate_passing_faults_end_the_stage_after_everything_else_and_are_asked_again(tmp_path, checkpoint):
    def answer(body):
        return Fault(status=503) if "year 2?" in prompt_of(body) else "an answer"

    def judge(body):
        if "year 1?" in prompt_of(body) and body["seed"] == 0:
            return Fault(status=500)
        return "no idea" if "year 3?" in prompt_of(body) and body["seed"] == 1 else "[[3]]"

    config = suite_run(longbench_chat_config(tmp_path / "suite"))
    with FakeChatServer(answer) as candidate, FakeChatServer(judge) as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        with pytest.raises(EndpointError, match="2 model calls were given up") as caught:
            run(config, checkpoint, tmp_path, settings)
        # Two answers judged twice; only the one without a verdict in another draw.
        assert sorted(body["seed"] for body in judging.requests) == [0, 0, 1, 1, 3]
    assert "candidate: server error 1; judge: server error 1" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    with FakeChatServer(lambda body: "late") as candidate, FakeChatServer(lambda body: "[[3]]") as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        counts, _, _, _ = run(config, checkpoint, tmp_path, settings)
        assert (len(candidate.requests), len(judging.requests)) == (1, 3)
    assert counts == {"questions": 3, "answered": 3, "unscored": 0, "mean_score": 3.0}


def test_evaluate_needle_grid_scores_by_words_and_needs_no_judge(tmp_path, checkpoint):
    def answer(body):
        text = prompt_of(body)
        return "You should EAT a sandwich, in Dolores-Park!" if text.startswith("The best thing") else "No idea."

    with FakeChatServer(answer) as candidate:
        settings = runtime(tmp_path, candidate=candidate.url)
        counts, answers, verdicts, _ = run(suite_run(needle_config(tmp_path / "hay")), checkpoint, tmp_path, settings)
    assert counts == {"questions": 6, "answered": 6, "unscored": 0, "mean_score": pytest.approx(1 / 3, abs=1e-4)}
    scores = {v.question_id: v.score for v in verdicts}
    assert scores == {"400@1": 0, "400@0.5": 0, "400@0": 1, "200@1": 0, "200@0.5": 0, "200@0": 1}
    assert {v.judge for v in verdicts} == {"exact match"}
    assert {(a.attributes["length"], a.attributes["depth"]) for a in answers} == {
        (length, depth) for length in (200, 400) for depth in (0.0, 0.5, 1.0)
    }


def test_evaluate_two_checkpoints_share_no_reply(tmp_path, checkpoint):
    other = tiny_tokenizer(tmp_path / "other", vocabulary=350)
    config = suite_run(needle_config(tmp_path / "hay", lengths=(200,), depths=(0.5,)))
    with FakeChatServer(lambda body: "No idea.") as candidate:
        settings = runtime(tmp_path, candidate=candidate.url)
        run(config, checkpoint, tmp_path, settings)
        run(config, other, tmp_path, settings)
    first, second = (body["model"] for body in candidate.requests)
    assert first != second


def test_evaluate_named_endpoint_without_the_checkpoint_says_under_which_name_to_serve_it(tmp_path, checkpoint):
    with FakeChatServer(lambda body: "hi", models=["other"]) as candidate:
        settings = runtime(tmp_path, candidate=candidate.url)
        with pytest.raises(EndpointError, match="serve this checkpoint as candidate-"):
            run(suite_run(needle_config(tmp_path / "hay")), checkpoint, tmp_path, settings)


@pytest.mark.slow
def test_evaluate_serves_checkpoint_and_judge_here_when_no_endpoint_is_named(tmp_path):
    weights = tiny_model(tmp_path / "weights")
    config = suite_run(longbench_chat_config(tmp_path / "suite", num_questions=2, repeats=1), context_tokens=512)
    judge = config.judge.model_copy(update={"model": "tiny-judge", "checkpoint": str(weights), "max_tokens": 8})
    settings = runtime(tmp_path)
    counts, answers, verdicts, _ = run(config.model_copy(update={"judge": judge}), weights, tmp_path, settings)
    assert counts == {"questions": 2, "answered": 2, "unscored": 2}
    assert all(answer.num_prompt_tokens > 0 and answer.num_reply_tokens <= 20 for answer in answers)
    assert {verdict.unscored for verdict in verdicts} <= {"no verdict", "empty reply"}
    servers = [path.name for path in (tmp_path / "scratch" / "logs").iterdir()]
    assert sorted(name.split("-")[1] for name in servers) == ["candidate", "judge"]
    run(config.model_copy(update={"judge": judge}), weights, tmp_path, settings)
    assert len(list((tmp_path / "scratch" / "logs").iterdir())) == 2, "a second run had nothing to ask"


def test_evaluate_on_a_new_machine_repeats_no_archived_call(tmp_path, checkpoint):
    with FakeChatServer(lambda body: "An answer.") as candidate, FakeChatServer(lambda body: "[[7]]") as judging:
        settings = runtime(tmp_path, candidate=candidate.url, judge=judging.url)
        config = suite_run(longbench_chat_config(tmp_path / "suite"))
        first = run(config, checkpoint, tmp_path, settings)
        shutil.rmtree(settings.scratch)
        shutil.rmtree(tmp_path / "out")
        candidate.requests.clear()
        judging.requests.clear()
        again = run(config, checkpoint, tmp_path, settings)
        assert (candidate.requests, judging.requests) == ([], [])
    assert again == first
