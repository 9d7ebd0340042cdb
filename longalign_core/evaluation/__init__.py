"""Evaluation: suites, judging, statistics, the scorecard and its page."""
