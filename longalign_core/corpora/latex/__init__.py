"""LaTeX projects to readable text."""
