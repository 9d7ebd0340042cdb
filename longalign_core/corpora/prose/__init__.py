"""What is asked of one text: its language, quality, personal data."""
