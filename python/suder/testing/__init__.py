"""The contract of `suder.models.base` as tests that anybody's adapter can run.

suder.testing.check_adapter(model)
"""

from suder.testing.adapter import CHECKS, check_adapter
from suder.testing.findings import AdapterError, AdapterReport, Outcome

__all__ = ["CHECKS", "AdapterError", "AdapterReport", "Outcome", "check_adapter"]
