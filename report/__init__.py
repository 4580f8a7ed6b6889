"""Tables and reports over a finished run."""

from qcq.report.comparison import Comparison, cautions, comparison, verdicts
from qcq.report.folds import Folds, write_folds
from qcq.report.maps import write_maps
from qcq.report.markdown import markdown_table, write_report
from qcq.report.page import Page, write_page, write_run_figures

__all__ = [
    "Comparison",
    "Folds",
    "Page",
    "cautions",
    "comparison",
    "markdown_table",
    "verdicts",
    "write_folds",
    "write_maps",
    "write_page",
    "write_report",
    "write_run_figures",
]
