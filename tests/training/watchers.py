"""Trackers and callbacks of a user's own, which remember what they were told."""

from typing import Any

from accelerate.tracking import GeneralTracker

TOLD: list[tuple[Any, ...]] = []  # what trackers and callbacks were told, in order; tests empty it


class Tracker(GeneralTracker):
    name = "recorder"
    requires_logging_directory = False

    def __init__(self, project: str, colour: str = "none") -> None:
        super().__init__()
        TOLD.append(("made", project, colour))

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        TOLD.append(("config", values))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        TOLD.append(("log", values, step))

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        TOLD.append(("images", values, step))

    def finish(self) -> None:
        TOLD.append(("finish",))


class FailingTracker(Tracker):
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        TOLD.append(("tried", step))
        raise ConnectionError("https://me:secret@host is\nnot there")


class Callback:
    def on_start(self, run: Any) -> None:
        TOLD.append(("start", run.step))

    def on_step(self, run: Any, metrics: dict[str, Any], batch: Any) -> None:
        TOLD.append(("step", metrics["step"], None if batch is None else batch.rollouts.pictures.shape))

    def on_save(self, run: Any, folder: Any) -> None:
        TOLD.append(("save", folder.name, (folder / "complete.json").exists()))

    def on_end(self, run: Any) -> None:
        TOLD.append(("end", run.step))


class BrokenCallback:
    def on_step(self, run: Any, metrics: dict[str, Any], batch: Any) -> None:
        raise ZeroDivisionError("no sheep")


class MisspeltCallback:
    def on_stpe(self, run: Any) -> None: ...


class SilentCallback:
    pass
