"""How a run ends: with its schedule, with its budget, or because it is told to leave. Every process goes the same way."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from darkroom_api.report import Action, Artifact, ExitCode, Reason, TerminationMessage
from darkroom_trainer.clock import now
from darkroom_trainer.errors import StorageError
from darkroom_trainer.summary.card import model_card

if TYPE_CHECKING:
    from darkroom_trainer.train import Run


def leave(run: "Run") -> TerminationMessage:
    """A checkpoint, then out, in the way that was asked for; every process at the same step."""
    run.save(wait=True)
    way = run.group.share(run.host.leaving)  # a signal may reach any process, a command of the operator rank 0 alone
    run.report.say(f"leaving at step {run.progress.step}, as asked ({way})")
    if way == Action.STOP:
        return finish_early(run)
    if way == Action.PRUNE:
        return _end(run, Reason.PRUNED, ExitCode.DONE)
    return _end(run, Reason.ASKED_TO_LEAVE, ExitCode.ASKED_TO_LEAVE)


def finish_early(run: "Run") -> TerminationMessage:
    """As after the last epoch, with what was learnt so far."""
    if (run.owes_evaluation() or run.progress.best is None) and not run.evaluate_epoch():
        return leave(run)
    return finish(run, Reason.BUDGET_SPENT)


def finish_in_time(run: "Run") -> TerminationMessage:
    """At the end of a bent schedule: the last weights are the best that there was time for, wherever the epoch is."""
    if run.evaluated_step != run.progress.step and not run.evaluate_epoch():
        return leave(run)
    return finish(run, Reason.BUDGET_SPENT)


def finish(run: "Run", reason: Reason = Reason.COMPLETED) -> TerminationMessage:
    """Measure the best epoch's weights on `test`, once, and export them."""
    run.save(wait=True)
    best = run.progress.best
    if best is None:
        raise StorageError(f"{run.config.run_dir}: the run is complete, but no epoch was evaluated")
    with run.clock.spend("restore"):
        parcel = run.group.share(lambda: run.checkpoints.best(best.step))
        run.layout.load(run.learner.judged, parcel.tensors("model."))
    metrics = dict(best.metrics)
    if "test" in run.splits:
        began, test = now(), run.evaluate("test")
        if test is None:
            return leave(run)
        run.report.evaluation("test", test, epoch=best.epoch, step=best.step, best=False, seconds=now() - began)
        run.review("test", best.epoch, best=True)
        metrics = {f"test/{name}": value for name, value in test.items()} | metrics
    run.report.keep_metrics(metrics)
    with run.clock.spend("other"), run.layout.whole(run.learner.judged) as network:
        run.host.message.model = run.group.share(lambda: export(run, network, metrics, best.epoch))
        run.course.finish()
    return _end(run, reason, ExitCode.DONE)


def export(run: "Run", network: nn.Module, metrics: dict[str, float], epoch: int) -> Artifact:
    """The network with its description and card, below the run's folder; raises StorageError."""
    from darkroom_trainer.export import export_model

    folder, description = Path(run.config.run_dir) / "model", run.task.describe()
    network = run.task.exported(network)
    card = model_card(
        description,
        metrics=metrics,
        recipe=run.vision.to_wire(),
        images={name: len(images) for name, images in run.splits.items()},
        epoch=epoch,
    )
    artifact = export_model(network, folder, description=description, metrics=metrics, card=card)
    run.summary.exported(network, description, epoch=epoch)
    run.report.event("exported", f"exported {folder}", path=artifact.path, sha256=artifact.sha256)
    return artifact


def _end(run: "Run", reason: Reason, exit_code: ExitCode) -> TerminationMessage:
    run.clock.switch("other")
    message = run.host.message
    message.reason, message.exit_code = reason, int(exit_code)
    message.step, message.epoch = run.progress.step, run.plan.epochs_done(run.progress.step)
    message.time, message.saved_seconds = run.clock.seconds(), run.course.saved()
    run.report.note("ended", step=message.step, reason=str(reason), time=message.time)
    run.summary.ended()
    run.report.close()
    return message
