"""The store: artifacts under their addresses, manifests, commits, leases and refs."""
