"""Rows of trainings on their way to the store: on disk from the beginning of a training.

Input: the row of a training, first as one that was cut off, then as what came of it. Output: a file
for each until the store has it; what a killed process or a store that was away left behind goes in
with the next training. Who reads or writes a directory holds the lock of its lineage.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from sysquant.home import write_whole
from sysquant.store import insert

log = logging.getLogger(__name__)

CUT_OFF = "cut off: its process was killed"
_NEWEST = b"newest"  # number of the newest model when the training began


def keep(path: Path, row: pa.Table, newest: int) -> None:
    """Write the row of a training in place of what was known before.

    Parameters
    ----------
    path : an `.arrow` file, whose name becomes the token of the insert.
    row : of `model_runs`.
    newest : number of the newest model of its lineage when it began; 0 for none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    marked = row.replace_schema_metadata({_NEWEST: str(newest).encode()})
    made = pa.BufferOutputStream()
    with pa.ipc.new_file(made, marked.schema) as file:
        file.write_table(marked)
    write_whole(path, made.getvalue().to_pybytes())


def deliver(directory: Path, client: Client, models: Mapping[int, Path]) -> None:
    """Insert the rows of a directory, oldest first, each once, and delete their files.

    Parameters
    ----------
    directory : of files of `keep`; none where it is missing.
    client : of the store.
    models : number -> directory of each published model of the lineage.

    Raises
    ------
    StoreError
        If the store does not take one; what is left is delivered another time.
    """
    for path in sorted(directory.glob("*.arrow")):
        try:
            row = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        except pa.ArrowException as error:
            log.warning("no row of a training path=%s error=%s", path, error)
            continue
        insert(client, "model_runs", _settled(row, models), f"retrain {path.stem}")
        path.unlink()


def _settled(row: pa.Table, models: Mapping[int, Path]) -> pa.Table:
    # A training that was cut off right after its model was published says so.
    newest = int((row.schema.metadata or {}).get(_NEWEST, b"0"))
    told = row.to_pylist()[0]
    row = row.replace_schema_metadata(None)
    if told["reasons"] != [CUT_OFF] or not told["id"]:
        return row
    for number, path in models.items():
        if number > newest and path.name.endswith(f"-{told['id'][:12]}"):
            for name, value in (("model", path.name), ("verdict", "published")):
                row = row.set_column(row.schema.get_field_index(name), name, pa.array([value]))
    return row
