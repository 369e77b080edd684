"""Charts of a run in other programs: TensorBoard, Weights & Biases.

They count epochs from 1, as the screen and the report do.
"""

import contextlib
import importlib
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import ml_collections

from jaxnlt.config import base as config_lib
from jaxnlt.results import files as result_files
from jaxnlt.results.files import Record
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError, logger
from jaxnlt.runtime.files import atomic


class Writer(Protocol):
    """Takes the figures of one epoch after the other."""

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Writes an epoch's figures; ``epoch`` counts from 1."""

    def close(self) -> None:
        """Called after the last epoch."""


class TensorBoard:
    """An events file; what an interrupted run wrote too far is hidden.

    Args:
      folder: of the events.
      first: the first epoch that will be written, from 1.
    """

    def __init__(self, folder: pathlib.Path, first: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        # Its SummaryWriter writes in a thread, where a full disk is a
        # traceback, and after it for ever waits.
        self._events = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(
            Event(wall_time=time.time(), step=first, session_log=start)
        )

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        """See ``Writer.write``."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = time.time()
        for name, value in figures.items():
            shown = scalar(name, value)
            self._events.write_event(
                Event(wall_time=now, step=epoch, summary=shown)
            )
        self._events.flush()

    def close(self) -> None:
        """See ``Writer.close``."""
        self._events.close()


class WeightsAndBiases:
    """A run of a project, which a resumed run goes on with.

    Args:
      config: the whole configuration; ``wandb`` names the project.
      workdir: the run's folder, which keeps the id.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: pathlib.Path
    ) -> None:
        known = workdir / "wandb_id.txt"
        if not known.exists():
            with atomic(known) as file:
                file.write(uuid.uuid4().hex)
        self._run = _wandb().init(
            project=config.wandb,
            name=workdir.name,
            id=known.read_text().strip(),
            resume="allow",
            dir=str(workdir),
            config=config_lib.as_json(config),
        )

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        """See ``Writer.write``."""
        self._run.log(dict(figures), step=epoch)

    def close(self) -> None:
        """See ``Writer.close``."""
        self._run.finish()


def _wandb() -> Any:
    """The package, which is an extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        found = importlib.import_module("wandb")
    except ImportError:
        found = None
    # The folder that its runs leave is a package without a name in it.
    if not hasattr(found, "init"):
        raise UserError(
            "config.wandb: the package wandb is not installed; "
            "pip install 'jaxnlt[wandb]'"
        )
    return found


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a run whose writers are not installed.

    Raises:
      UserError: naming the field and what to install.
    """
    if config.wandb:
        _wandb()


class Writers:
    """All writers of a run; one that fails is left out after one warning.

    Args:
      config: the whole configuration.
      workdir: the run's folder.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: pathlib.Path
    ) -> None:
        self._config, self._workdir = config, workdir
        self._open: dict[str, Writer] | None = None

    def write(self, record: Record) -> None:
        """Writes the numbers of an epoch.

        Args:
          record: an object of metrics.jsonl.
        """
        epoch = record["epoch"] + 1
        figures = {
            name: value
            for name, value in result_files.plain(record).items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and name != "epoch"
        }
        if self._open is None:
            self._open = self._opened(epoch)
        for name, writer in list(self._open.items()):
            with self._surviving(name):
                writer.write(epoch, figures)

    def close(self) -> None:
        """Closes them all."""
        for name, writer in list((self._open or {}).items()):
            with self._surviving(name):
                writer.close()
        self._open = None

    def _opened(self, first: int) -> dict[str, Writer]:
        made: dict[str, Callable[[], Writer]] = {
            "TensorBoard": lambda: TensorBoard(self._workdir / "events", first)
        }
        if self._config.wandb:
            made["Weights & Biases"] = lambda: WeightsAndBiases(
                self._config, self._workdir
            )
        self._open = {}
        for name, make in made.items():
            with self._surviving(name):
                self._open[name] = make()
        return self._open

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Ends a writer that fails, never the run."""
        try:
            yield
        except Exception as error:
            assert self._open is not None
            self._open.pop(name, None)
            reason = console.one_line(f"{type(error).__name__}: {error}")
            logger.warning(
                "%s: nothing more is written there (%s)", name, reason
            )
