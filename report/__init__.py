"""Tables and reports over a finished run."""

from qcq.report.comparison import Comparison, comparison, verdicts
from qcq.report.markdown import markdown_table, write_report

__all__ = ["Comparison", "comparison", "markdown_table", "verdicts", "write_report"]
