"""What is asked of one text: its quality, and personal data in it."""
