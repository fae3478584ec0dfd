"""A run folder as one self-contained HTML page: no network, no other files."""

from pathlib import Path

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.report.watch import watch_run, write_page

__all__ = ["ReportConfig", "watch_run", "write_report"]


class ReportConfig(StrictModel):
    """Which run is reported, and where."""

    run: Path = Field(description="Run folder, or a folder of runs such as the quickstart's.")
    out: Path | None = Field(default=None, description="File of the page; null is report.html in the run folder.")
    watch: bool = Field(
        default=False,
        description="Write the page anew whenever the run has grown, until the run ends; the page loads itself again.",
    )

    @property
    def page(self) -> Path:
        """The file of the page."""
        return self.out or self.run / "report.html"


def write_report(run_folder: Path, output: Path | None = None) -> Path:
    """Write the report of a run folder, or of a folder of runs like the quickstart's.

    Returns the path of the page. output: the page; `report.html` in the folder by default. The page leaves out what the
    folder does not have.
    Raises UserError if the folder is missing or holds no run.
    """
    folder = Path(run_folder)
    path = folder / "report.html" if output is None else Path(output)
    write_page(folder, path)
    return path
