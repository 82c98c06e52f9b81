"""Live reports from the trainer's side: commands are obeyed by all processes, and nothing ever waits for the operator."""

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom_api.report import Action, Best, LiveReport, Metric, Reason, Reply, TerminationMessage
from darkroom_trainer.checkpoint import Checkpoints
from darkroom_trainer.clock import Eta
from darkroom_trainer.live import TIMEOUT, Line, Pace
from darkroom_trainer.report import running
from darkroom_trainer.worker import Stop
from tests.kube import eventually
from tests.report_server import PATH, ReportServer, environ
from tests.trainer.processes import free_port, start_node, toy_config

QUICK = Pace(news=0.2, silence=0.4, urgent=0.05, failing=0.5)
LONG = {"schedule": {"epochs": 500}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReportServer]:
    with ReportServer(tmp_path) as server:
        yield server


def line_to(server_environ: dict[str, str], obeyed: list[Action] | None = None) -> Line:
    context = ssl.create_default_context(cadata=server_environ["DARKROOM_REPORT_CA"])
    token = Path(server_environ["DARKROOM_REPORT_TOKEN_FILE"])
    heard = obeyed if obeyed is not None else []
    return Line(server_environ["DARKROOM_REPORT_URL"], token, context, lambda reply: heard.append(reply.action), QUICK)


def facts(at: int, **fields) -> TerminationMessage:
    return running().model_copy(update={"step": at, "steps": 100, "epochs": 10} | fields)


# --- Whole trainings ---


def test_prune_ends_a_run_of_two_processes_with_a_checkpoint(tmp_path, server):
    server.answer = lambda report: (200, {"action": "prune" if report.body["step"] else "continue"})
    node = start_node(toy_config(tmp_path, **LONG), tmp_path, processes=2, **server.environ).wait()
    assert (node.code, node.message.reason, node.message.exit_code) == (0, Reason.PRUNED, 0), node.output
    assert saved_step(tmp_path) == node.message.step == node.message.checkpoint_step > 0
    assert node.message.model is None


def test_stop_ends_a_run_of_two_processes_as_after_its_last_epoch(tmp_path, server):
    server.answer = lambda report: (200, {"action": "stop" if "best" in report.body else "continue"})
    node = start_node(toy_config(tmp_path, **LONG), tmp_path, processes=2, **server.environ).wait()
    assert (node.code, node.message.reason, node.message.exit_code) == (0, Reason.BUDGET_SPENT, 0), node.output
    assert saved_step(tmp_path) == node.message.step < node.message.steps
    assert (tmp_path / "run/model/model.safetensors").exists()
    assert {m.name for m in node.message.metrics} >= {"test/top1", "val/top1"}
    reports = [LiveReport.model_validate(report.body, strict=False) for report in server.received]
    assert {(r.path, r.token) for r in server.received} == {(PATH, "Bearer a-token")}
    sequences = [report.sequence for report in reports]
    assert sequences == sorted(set(sequences))
    assert reports[0].steps == node.message.steps
    evaluated = next(report for report in reports if report.best)
    assert "val/top1" in {metric.name for metric in evaluated.metrics}
    assert sum(evaluated.time.values()) > 0


def test_yield_ends_a_run_that_is_to_be_continued(tmp_path, server):
    server.answer = lambda report: (200, {"action": "yield" if report.body["step"] else "continue"})
    node = start_node(toy_config(tmp_path, **LONG), tmp_path, **server.environ).wait()
    assert (node.code, node.message.reason) == (75, Reason.ASKED_TO_LEAVE), node.output
    assert saved_step(tmp_path) == node.message.checkpoint_step > 0


def saved_step(folder: Path) -> int:
    parcel = Checkpoints(folder / "run/checkpoints", keep=9).newest()
    assert parcel is not None
    return parcel.saved.step


def test_an_operator_that_does_not_answer_changes_nothing(tmp_path):
    (tmp_path / "token").write_text("a-token")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        there = environ(deaf.getsockname()[1], tmp_path / "token")
        node = start_node(toy_config(tmp_path, schedule={"epochs": 2}), tmp_path, **there).wait()
    assert (node.code, node.message.reason) == (0, Reason.COMPLETED), node.output


# --- The line alone ---


def test_telling_never_waits(tmp_path):
    (tmp_path / "token").write_text("a-token")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, and never says a word
        line = line_to(environ(deaf.getsockname()[1], tmp_path / "token"))
        eventually(lambda: line.tell(facts(0), Eta(10.0)) or line._sequence, what="a report under way")
        began = time.monotonic()
        for step in range(500):
            line.tell(facts(step), Eta(10.0))
        line.close()
        assert time.monotonic() - began < TIMEOUT / 2  # that report waits for all of it


def test_the_newest_facts_win_and_the_pace_is_kept(server):
    line, began = line_to(server.environ), time.monotonic()
    eventually(lambda: line.tell(facts(1), Eta(5.0)) or server.received, what="the first report")
    for step in range(2, 200):
        line.tell(facts(step), Eta(10.0, 8.4, 12.6))
        time.sleep(0.005)
    eventually(lambda: server.received[-1].body["step"] == 199, what="the last word")
    assert len(server.received) <= (time.monotonic() - began) / QUICK.news + 1
    last = server.received[-1].body
    assert (last["etaSeconds"], last["etaLowSeconds"], last["etaHighSeconds"]) == (10, 8, 13)
    line.close()


def test_an_evaluation_is_sent_at_once(server):
    slow = Pace(news=600, silence=600, urgent=0.05, failing=600)
    url, token = server.environ["DARKROOM_REPORT_URL"], server.token
    line = Line(url, token, ssl.create_default_context(cadata=server.environ["DARKROOM_REPORT_CA"]), print, slow)
    line.tell(facts(1), Eta(50.0))
    eventually(lambda: server.received, what="the first report")
    line.tell(facts(2), Eta(40.0))
    line.tell(facts(2, best=Best(metric="val/top1", value="0.9", epoch=1)), None)
    eventually(lambda: server.received[-1].body.get("best"), what="the evaluation")
    assert len(server.received) == 2
    assert server.received[-1].body["etaSeconds"] == 40
    line.close()


def test_silence_is_filled_so_that_commands_arrive(server):
    obeyed: list[Action] = []
    line = line_to(server.environ, obeyed)
    line.tell(facts(1), Eta(5.0))
    eventually(lambda: len(server.received) >= 3, what="reports without news")
    server.answer = lambda _: (200, {"action": "yield"})
    eventually(lambda: Action.YIELD in obeyed, what="the command")
    line.close()


def test_a_server_that_comes_back_is_found(tmp_path, capfd):
    port = free_port()
    (tmp_path / "token").write_text("a-token")
    line = line_to(environ(port, tmp_path / "token"))
    line.tell(facts(1), Eta(5.0))
    eventually(lambda: line._failures >= 3, what="failures")
    with ReportServer(tmp_path, port=port) as server:
        line.tell(facts(7), Eta(5.0))
        eventually(lambda: server.received and server.received[-1].body["step"] == 7, what="the newest report")
        eventually(lambda: line._failures == 0, what="the line knows")
        line.close()
    said = capfd.readouterr().out
    assert said.count("do not get through") == 1
    assert said.count("get through again") == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((403, {"error": "no"}), id="refused"),
        pytest.param((200, {"action": "dance"}), id="an action of the future"),
        pytest.param((200, {}), id="nothing said"),
    ],
)
def test_odd_answers_are_no_commands(server, answer):
    obeyed: list[Action] = []
    server.answer = lambda _: answer
    line = line_to(server.environ, obeyed)
    line.tell(facts(1), Eta(5.0))
    eventually(lambda: len(server.received) >= 2, what="two reports")
    assert set(obeyed) <= {Action.CONTINUE}
    line.close()


def test_a_replica_that_is_not_ready_is_asked_again_at_once(server):
    server.answer = lambda _: (503, {"error": "not the leader"}) if len(server.received) == 1 else (200, {})
    line = line_to(server.environ)
    line.tell(facts(1), Eta(5.0))
    eventually(lambda: len(server.received) >= 2, what="another try")
    assert [r.body["sequence"] for r in server.received[:2]] == [1, 1]
    line.close()


def test_the_token_is_read_each_time(server):
    line = line_to(server.environ)
    line.tell(facts(1), Eta(5.0))
    eventually(lambda: server.received, what="a report")
    server.token.write_text("another\n")
    eventually(lambda: server.received[-1].token == "Bearer another", what="the new token")
    line.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(None, "", id="no address"),
        pytest.param({"DARKROOM_REPORT_CA": "no certificate"}, "no live reports", id="an authority that is none"),
        pytest.param({"DARKROOM_REPORT_URL": "https://[::1"}, "no live reports", id="an address that is none"),
        pytest.param({"DARKROOM_REPORT_URL": "https://a:b/c"}, "no live reports", id="a port that is none"),
    ],
)
def test_what_cannot_be_understood_opens_no_line(tmp_path, capfd, given, said):
    there = {} if given is None else environ(free_port(), tmp_path / "token") | given
    assert Line.open(there, print) is None
    assert said in capfd.readouterr().out


def test_a_report_that_makes_no_sense_is_passed_over(server):
    line = line_to(server.environ)
    line.tell(facts(1, step=-1), Eta(5.0))
    eventually(lambda: line._failures, what="a failure")
    line.tell(facts(2), Eta(5.0))
    eventually(lambda: server.received, what="the next report")
    assert server.received[0].body["step"] == 2
    line.close()


def test_metrics_are_copied_when_they_are_told(server):
    message = facts(1, metrics=[Metric(name="train/loss", value="1")])
    line = line_to(server.environ)
    line.tell(message, Eta(5.0))
    message.metrics.clear()
    eventually(lambda: server.received, what="a report")
    assert server.received[0].body["metrics"] == [{"name": "train/loss", "value": "1"}]
    line.close()


# --- What a command does to a process ---


def test_each_command_counts_once_and_a_signal_comes_first():
    stop = Stop()
    stop.obey(Action.CONTINUE)
    assert not stop.asked
    stop.obey(Action.STOP)
    assert stop.asked
    assert stop.take() == Action.STOP
    stop.obey(Action.STOP)  # the operator says it again until we have left
    assert not stop.asked
    stop.obey(Action.YIELD)
    assert stop.asked
    stop.training = True
    stop._ask()
    stop.obey(Action.PRUNE)
    assert stop.take() == Action.YIELD


def test_the_time_that_is_left_runs_down_between_two_answers():
    stop = Stop()
    assert stop.seconds_left() is None
    stop.hear(Reply(seconds_left=100.0))
    assert 99 < stop.seconds_left() <= 100
    assert not stop.asked
    stop.hear(Reply(action=Action.STOP))
    assert stop.seconds_left() is None
    assert stop.asked
