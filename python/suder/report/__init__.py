"""A run as one self-contained page of HTML. Reads what a run left; measures nothing."""

from suder.report.page import write_report

__all__ = ["write_report"]
