"""The first files of a project: their text, and writing them without overwriting anything."""

from failpath_otel.starting.document import EXAMPLE, as_document, rules_for
from failpath_otel.starting.from_server import flows_of_server
from failpath_otel.starting.writing import write_new

__all__ = ["EXAMPLE", "as_document", "flows_of_server", "rules_for", "write_new"]
