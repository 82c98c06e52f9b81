"""What surrounds a training process: its group, its clock, and who may tell it to leave or wants to know how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from darkroom_api.report import Action, TerminationMessage
from darkroom_trainer.clock import Clock, Eta, process_start
from darkroom_trainer.parallel import Group
from darkroom_trainer.report import running


@dataclass
class Host:
    """The defaults are a process of its own, as in a notebook or a test.

    stop: whether this process was told to leave; leaving: in which way, asked once it does so; began: called when
    training begins, from when on `stop` is honoured with a checkpoint; alive: called after each step and each batch of an
    evaluation; seconds_left: of the budget, as the operator last said; publish: called when `message` has news; tell:
    called for whoever watches, with the time to the end, or with None at the start and after each evaluation.
    """

    group: Group = field(default_factory=Group)
    clock: Clock = field(default_factory=lambda: Clock(process_start()))
    message: TerminationMessage = field(default_factory=running)
    stop: Callable[[], bool] = lambda: False
    leaving: Callable[[], Action] = lambda: Action.YIELD
    began: Callable[[], None] = lambda: None
    alive: Callable[[], None] = lambda: None
    seconds_left: Callable[[], float | None] = lambda: None
    publish: Callable[[], None] = lambda: None
    tell: Callable[[Eta | None], None] = lambda _: None
