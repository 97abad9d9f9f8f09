"""Scorers of published benchmarks, for users who have the data; each module says the protocol's exact conventions."""
