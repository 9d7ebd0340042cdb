"""Pages, posts, articles and books with their mark-up taken off."""
