"""What a checkout has to keep of an order, so that it can go on after a crash: the id of its reserve,
before it reserves."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from stockd import new_request_id


@dataclass
class Order:
    # The shop's own name for it, which the reservation carries, too.
    reference: str
    reserve_id: str
    # Whether the money has come.
    is_paid: bool = False


class Journal:
    """Where an order is kept: one file, written whole."""

    def __init__(self, folder: Path, reference: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._reference = reference
        self._path = folder / f"{reference}.json"

    def open(self) -> Order:
        """The order as it was left, or a new one: it is on the disk when this returns."""
        try:
            return Order(**json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            order = Order(self._reference, new_request_id())
            self.keep(order)
            return order

    def keep(self, order: Order) -> None:
        """Keeps the order as it is now."""
        written = self._path.with_suffix(".new")
        with open(written, "w", encoding="utf-8") as file:
            json.dump(asdict(order), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, self._path)
        sync_folder(self._path.parent)


def sync_folder(folder: Path) -> None:
    """Has a file's new name on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
