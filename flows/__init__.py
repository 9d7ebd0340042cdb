"""The flows that a person or a schedule starts."""
