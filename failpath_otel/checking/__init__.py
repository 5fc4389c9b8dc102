"""Flow and step keys in a source tree, held against flows.json without running anything."""

from failpath_otel.checking.diagnostics import Diagnostic, Report, Severities
from failpath_otel.checking.files import python_files
from failpath_otel.checking.found import FoundFlows, flows_in
from failpath_otel.checking.tree import check_tree

__all__ = ["Diagnostic", "FoundFlows", "Report", "Severities", "check_tree", "flows_in", "python_files"]
