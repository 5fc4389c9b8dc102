"""What a support engineer would check: versions, options, tracing, destinations, files and the way of running."""

from failpath_otel.doctor.examination import examine
from failpath_otel.doctor.finding import Diagnosis, Finding, Level

__all__ = ["Diagnosis", "Finding", "Level", "examine"]
