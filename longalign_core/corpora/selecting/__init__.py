"""The draw over lengths, languages and corpora, and the page that shows it."""
