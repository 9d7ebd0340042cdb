"""What the UI shows of a product: its counts as a table, the draw as tables, a training's curves, the scorecard."""

from __future__ import annotations

import base64
import re

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from longalign_core.batching.tables import planned_rows
from longalign_core.drawn_tables import drawn_rows, rejects_of
from longalign_core.store import Manifest, Store
from longalign_core.training.curve import curve_picture, curve_rows
from longalign_core.written_tables import spent_rows, written_rows


def show_product(manifest: Manifest, store: Store) -> None:
    """Attach a product's figures to the current task run.

    The product is committed: a server that is busy for a moment must not fail the run over a table.
    """
    try:
        _show(manifest, store)
    except Exception as error:
        get_run_logger().warning("the figures of %s are not shown: %s", manifest.address, error)


def _show(manifest: Manifest, store: Store) -> None:
    key = re.sub(r"[^a-z0-9-]+", "-", f"{manifest.stage}-{manifest.label}".lower()).strip("-")
    rows = [{"what": name.replace("_", " "), "count": value} for name, value in manifest.counts.items()]
    create_table_artifact(table=rows, key=key, description=f"`{manifest.address}` in {store.url}")
    if manifest.stage == "select":
        folder = store.fetch(manifest)
        create_table_artifact(table=drawn_rows(folder), key="selection-drawn", description=manifest.address)
        create_table_artifact(table=rejects_of(folder), key="selection-rejects", description=manifest.address)
    if manifest.stage == "instruct":
        folder = store.fetch(manifest)
        create_table_artifact(table=written_rows(folder), key="conversations-written", description=manifest.address)
        create_table_artifact(table=spent_rows(folder), key="conversations-paid", description=manifest.address)
    if manifest.stage == "batches":
        rows = [
            {name: value for name, value in row.items() if not isinstance(value, dict)}
            for row in planned_rows(store.fetch(manifest))
        ]
        create_table_artifact(table=rows, key="batches-compared", description=manifest.address)
    if manifest.stage in ("train", "extend"):
        folder = store.fetch(manifest)
        picture = base64.b64encode(curve_picture(folder).encode()).decode()
        create_image_artifact(
            f"data:image/svg+xml;base64,{picture}", key=f"{manifest.stage}-loss", description=manifest.address
        )
        create_table_artifact(table=curve_rows(folder), key=f"{manifest.stage}-curve", description=manifest.address)
    if manifest.stage == "scorecard":
        text = (store.fetch(manifest) / "scorecard.md").read_text(encoding="utf-8")
        create_markdown_artifact(markdown=text, key="scorecard-page", description=manifest.address)
