"""``python -m failpath_otel.cli``."""

from failpath_otel.cli import main

main()
