"""Sending on what comes in, to the Failpath API or another server."""
