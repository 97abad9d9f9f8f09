"""``report.html`` beside a result: one page that opens from the disk and asks no host for anything."""

from tracker.report.page import ReportData, write_report
from tracker.report.strip import Strip

__all__ = ["ReportData", "Strip", "write_report"]
