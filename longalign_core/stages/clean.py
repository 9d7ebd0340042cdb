"""Stage `clean`: the documents of all corpora compared with one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.config.runtime import Runtime
from longalign_core.engine import InProcess, current_engine
from longalign_core.progress import track
from longalign_core.records import Reject
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.documents import KEPT, num_documents, part_files, read_ids
from longalign_core.stages.ingest import SMALL_BYTES
from longalign_core.stages.outcomes import SHORT_BATCH, write_outcomes
from longalign_core.stages.protect import PROTECTED


@dataclass(frozen=True, slots=True)
class KeptId:
    """Id of a document that `clean` keeps."""

    id: str


@stage("clean", version=1)
def clean(config: CleaningConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Compare the documents of all corpora: `kept.parquet` (ids) and `rejects.parquet`.

    Each part file is sketched by the runtime's engine; what a killed run finished of them is used.
    """
    # Workers of a cluster may run in another folder.
    files = [file.absolute() for folder in inputs["documents"] for file in part_files(folder)]
    is_compared = config.exact_duplicates or config.near_duplicates is not None or config.containment is not None
    if files and (is_compared or config.decontamination_words is not None):
        outcomes = _compared(config, files, inputs, out_dir, runtime)
    else:
        outcomes = (one for file in files for one in read_ids(file))
    records = (KeptId(one) if isinstance(one, str) else one for one in outcomes)
    return write_outcomes(records, out_dir, KEPT, KeptId, batch=SHORT_BATCH)


def _compared(
    config: CleaningConfig, files: list[Path], inputs: Inputs, out_dir: Path, runtime: Runtime
) -> Iterator[str | Reject]:
    from longalign_core.corpora.comparing.comparison import compare
    from longalign_core.corpora.comparing.part_sketches import SketchJob, sketch_part

    protected = None
    if config.decontamination_words is not None:
        (folder,) = inputs["protected"]
        protected = folder.absolute() / PROTECTED
    scratch = out_dir.absolute() / ".sketches"
    jobs = [SketchJob(file, scratch / f"{number:05d}.parquet", config, protected) for number, file in enumerate(files)]
    is_small = sum(file.stat().st_size for file in files) < SMALL_BYTES
    engine = InProcess() if is_small else current_engine(runtime)
    total = num_documents(inputs["documents"])
    with track("clean: sketch documents", total=total, unit="documents") as step:
        for count in engine.run(sketch_part, jobs, label="clean", look=lambda: None):
            step(count)
    with track("clean: compare documents", total=total, unit="documents") as step:
        yield from compare([job.table for job in jobs], config, scratch, step)
