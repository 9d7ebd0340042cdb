"""Records of large dumps: posts joined to threads, archived web pages."""
