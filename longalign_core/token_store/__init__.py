"""Encoded conversations on disk: ragged token ids, memory-mapped, with the spans a model is trained on.

A folder of Arrow streams (`tokens-00000.arrow`, …) that `datasets` reads as they are, `lengths.npy` and
`targets.npy`, and `token_store.json`, which is written last and has the sha256 of every other file: a
folder without it is not a token store. Two bytes a token for vocabularies of up to 65,536 ids, else
four, and eight for each span of targets.
"""

from longalign_core.token_store.index import seal
from longalign_core.token_store.reading import TokenStore
from longalign_core.token_store.shards import Shard, ShardWriter, make_batch, shard_name, token_type, with_labels
from longalign_core.token_store.writing import SequenceRow, TokenStoreWriter

__all__ = [
    "SequenceRow",
    "Shard",
    "ShardWriter",
    "TokenStore",
    "TokenStoreWriter",
    "make_batch",
    "seal",
    "shard_name",
    "token_type",
    "with_labels",
]
