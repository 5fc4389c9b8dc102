"""A run on its way: the current one of a context, in baggage, in a carrier, across threads."""
