"""Logs of a run: read, and truncated to the checkpoint that it is resumed from."""

import csv
import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from gan_zoo.files import atomic_write

log = logging.getLogger(__name__)

# Figures of a finished run, which a resumed run has not reached yet.
_OF_THE_END = "final/"
# Longer records hold pictures.
_LONGEST_FIGURE = 2**16


def logged_figures(folder: Path) -> dict[str, dict[int, float]]:
    """The finite figures in a run's event files: tag -> iteration -> value.

    A file that is still being written, or is damaged, is read as far as it goes.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events_of_figures(file) if file.is_file() else ():
            for value in event.summary.value:
                if value.HasField("simple_value") and math.isfinite(value.simple_value):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def _events_of_figures(path: Path) -> Iterator[Event]:
    with path.open("rb") as file:
        while len(header := file.read(12)) == 12:
            length, checksum = struct.unpack("<QI", header)
            if checksum != masked_crc32c(header[:8]):
                return
            if length > _LONGEST_FIGURE:
                file.seek(min(length, 2**40) + 4, 1)
                continue
            record = file.read(length + 4)
            try:
                event = Event.FromString(record[:-4])
            except DecodeError:
                return
            if len(record) == length + 4:
                yield event


def truncate_logs(folder: Path, step: int) -> None:
    """Removes from a run's event files and CSV files what was logged after an iteration.

    A record that a killed process left unfinished is removed too, and so are the final figures of a
    run that is trained for longer, whose iteration is kept; what is damaged is removed with a
    warning. The next session appends to the rest without a gap, and logs nothing twice.
    TensorBoard's ``purge_step`` would only hide events from its own page, and does nothing for CSV
    files.

    Args:
        folder: of the run.
        step: the iteration; -1 removes everything.
    """
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        whole, damaged = _records(content)
        if damaged:
            log.warning(
                "'%s' is damaged: %s of its %s bytes are removed, the %s events elsewhere kept.",
                *(file, f"{damaged:,}", f"{len(content):,}", f"{len(whole):,}"),
            )
        kept = b"".join(record for record, event in whole if _stays(event, step))
        if kept != content:
            with atomic_write(file) as aside:
                aside.write_bytes(kept)
    for table in sorted(folder.glob("csv/version_*/metrics.csv")):
        _cut_table(table, step)


def _records(content: bytes) -> tuple[list[tuple[bytes, Event]], int]:
    """The whole records of an event file with their events, and how many bytes are none.

    A record is the event's length (8 bytes), its checksum (4), the event and its checksum (4). An
    unfinished one at the end is not counted.
    """
    whole: list[tuple[bytes, Event]] = []
    start = read = 0
    while start + 12 <= len(content):
        length, checksum = struct.unpack_from("<QI", content, start)
        if checksum != masked_crc32c(content[start : start + 8]):
            # The next record is looked for byte by byte.
            start += 1
            continue
        end = start + length + 16
        if end > len(content):
            return whole, start - read
        data = content[start + 12 : end - 4]
        if struct.unpack_from("<I", content, end - 4)[0] == masked_crc32c(data):
            whole.append((content[start:end], Event.FromString(data)))
            read += end - start
        start = end
    return whole, start - read


def _stays(event: Event, step: int) -> bool:
    """Whether an event belongs to a run that is resumed after that iteration."""
    values = event.summary.value
    ends = any(value.tag.startswith(_OF_THE_END) for value in values)
    # The columns of the table of runs, announced at the start, hold no number yet.
    announced = ends and all(value.simple_value != value.simple_value for value in values)
    return event.HasField("file_version") or (event.step <= step and (announced or not ends))


def _cut_table(table: Path, step: int) -> None:
    text = table.read_text(errors="replace")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    columns = next(csv.reader(lines[:1]), [])
    if "step" not in columns:
        if lines:
            log.warning("'%s' is damaged and is removed: its columns have no names.", table)
        table.unlink()
        return
    at = columns.index("step")
    final = [i for i, name in enumerate(columns) if name.startswith(_OF_THE_END)]
    kept, damaged = [lines[0]], 0
    for line in lines[1:]:
        row = next(csv.reader([line]), [])
        if len(row) != len(columns) or not row[at].isdecimal():
            damaged += 1
        elif int(row[at]) <= step and not any(row[i] for i in final):
            kept.append(line)
    if damaged:
        log.warning("'%s' is damaged: %s of its lines are removed.", table, damaged)
    if kept != text.splitlines(keepends=True):
        with atomic_write(table) as aside:
            aside.write_text("".join(kept))
