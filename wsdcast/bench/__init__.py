"""Benchmarks of the stages on the user's machine. Each gives its time as a ratio to the time of a lower limit, measured in the same run."""
