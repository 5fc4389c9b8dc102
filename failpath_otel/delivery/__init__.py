"""From an event to an exporter: bounded queue, one worker, deadlines, counts; fork and exit."""

from __future__ import annotations

from failpath_otel.delivery.counts import DropReason, FlushResult, Stats
from failpath_otel.delivery.delivery import Delivery
from failpath_otel.delivery.direct import DirectSink
from failpath_otel.delivery.masking import Mask
from failpath_otel.delivery.sink import Sink

__all__ = ["Delivery", "DirectSink", "DropReason", "FlushResult", "Mask", "Sink", "Stats"]
