"""A run as one self-contained page of HTML."""

from suder.report.page import write_report

__all__ = ["write_report"]
