"""Source trees: which files count, how they are ordered, cut and put together."""
