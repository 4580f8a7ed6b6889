"""Tables and reports over a finished run."""

from qcq.report.comparison import Comparison, beside_baselines, cautions, comparison, verdicts
from qcq.report.folds import Folds, write_folds
from qcq.report.maps import Mapped
from qcq.report.markdown import write_report
from qcq.report.page import write_page, write_run_figures
from qcq.report.trace import StudentState, trace
from qcq.report.tracking import TRACKERS, Tracker, tracked
from qcq.support.terminal import markdown_table

__all__ = [
    "TRACKERS",
    "Comparison",
    "Folds",
    "Mapped",
    "StudentState",
    "Tracker",
    "beside_baselines",
    "cautions",
    "comparison",
    "markdown_table",
    "trace",
    "tracked",
    "verdicts",
    "write_folds",
    "write_page",
    "write_report",
    "write_run_figures",
]
