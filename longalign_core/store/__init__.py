"""The store: artifacts under their addresses, manifests, commits, leases and refs."""

from longalign_core.store.artifacts import Store
from longalign_core.store.manifest import Manifest

__all__ = ["Manifest", "Store"]
