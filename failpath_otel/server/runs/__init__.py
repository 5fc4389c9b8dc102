"""The state of a run, made of its events. Pure."""
