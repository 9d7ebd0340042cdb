"""Stage `clean`: the documents of all corpora compared with one another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.config.runtime import Runtime
from longalign_core.progress import track
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.documents import KEPT, all_documents, num_documents, watched
from longalign_core.stages.outcomes import SHORT_BATCH, write_outcomes


@dataclass(frozen=True, slots=True)
class KeptId:
    """Id of a document that `clean` keeps."""

    id: str


@stage("clean", version=1)
def clean(config: CleaningConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Compare the documents of all corpora: `kept.parquet` (ids) and `rejects.parquet`."""
    from longalign_core.corpora.duplicates import find_duplicates

    with track("clean", total=num_documents(inputs["documents"]), unit="documents") as step:
        documents = watched(all_documents(inputs["documents"]), step)
        kept = find_duplicates(documents) if config.exact_duplicates else (document.id for document in documents)
        records = (KeptId(one) if isinstance(one, str) else one for one in kept)
        return write_outcomes(records, out_dir, KEPT, KeptId, batch=SHORT_BATCH)
