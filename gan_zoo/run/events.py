"""Logs of a run, truncated to the checkpoint that it is resumed from."""

import csv
import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from gan_zoo.files import atomic_write

# A record: length (8 bytes), its checksum (4), the event, its checksum (4).
_HEAD, _TAIL = 12, 4
# Figures of a finished run, which a resumed run has not reached yet.
_OF_THE_END = "final/"


def truncate_logs(folder: Path, step: int) -> None:
    """Removes from a run's event files and CSV files what was logged after an iteration.

    A record that a killed process left unfinished is removed too, and so are the final figures of a
    run that is trained for longer, whose iteration is kept. The next session appends to the rest
    without a gap, and logs nothing twice. TensorBoard's ``purge_step`` would only hide events from
    its own page, and does nothing for CSV files.

    Args:
        folder: of the run.
        step: the iteration; -1 removes everything.
    """
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        kept = b"".join(_kept(content, step))
        if kept != content:
            with atomic_write(file) as aside:
                aside.write_bytes(kept)
    for table in sorted(folder.glob("csv/version_*/metrics.csv")):
        _cut_table(table, step)


def _kept(content: bytes, step: int) -> Iterator[bytes]:
    start = 0
    while start + _HEAD <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + _HEAD + length + _TAIL
        if end > len(content):
            return
        event = Event.FromString(content[start + _HEAD : end - _TAIL])
        ends = any(value.tag.startswith(_OF_THE_END) for value in event.summary.value)
        # The columns of the table of runs, announced at the start, hold no number yet.
        announced = ends and all(v.simple_value != v.simple_value for v in event.summary.value)
        if event.HasField("file_version") or (event.step <= step and (announced or not ends)):
            yield content[start:end]
        start = end


def _cut_table(table: Path, step: int) -> None:
    text = table.read_text()
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    if not lines:
        table.unlink()
        return
    columns = next(csv.reader(lines[:1]))
    at = columns.index("step")
    final = [i for i, name in enumerate(columns) if name.startswith(_OF_THE_END)]
    kept = [
        line
        for line, row in zip(lines[1:], csv.reader(lines[1:]), strict=True)
        if int(row[at]) <= step and not any(row[i] for i in final)
    ]
    if [lines[0], *kept] != text.splitlines(keepends=True):
        with atomic_write(table) as aside:
            aside.write_text("".join([lines[0], *kept]))
