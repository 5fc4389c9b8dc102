"""Spans: opened by steps, and looked at by the processor and its rules."""
