"""Prefect's view of a stage: runner, progress, what the UI shows. No logic of the pipeline."""
