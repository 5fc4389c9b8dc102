"""Runs and steps: what an application calls."""
