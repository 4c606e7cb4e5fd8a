"""Columns of a table: devices of one name whose software agrees. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerbench.cluster.nodes import Slot, is_label


@dataclass
class Column:
    """Nodes whose figures may stand below each other.

    Attributes:
        name: of the devices, for people.
        slug: of the devices, as in records.
        torch: their version of PyTorch.
        slots: those that are alive.
    """

    name: str
    slug: str
    torch: str
    slots: list[Slot] = field(default_factory=list)


class Columns:
    """Sorts devices into columns as nodes come and go.

    A device that was asked for by a node's label has a column of that name. What a column was
    called first it stays, also where one that is like it comes later: files have the name.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str, str], Column] = {}
        self._titles: dict[int, str] = {}
        self._folders: dict[int, str] = {}

    def add(self, said: str, slot: Slot) -> Column:
        """The column of a device that was asked for by this name; the device is in it now."""
        device, torch = slot.device, slot.node.torch
        name = said if is_label(said, slot) else device.usual_name
        key = (name, device.slug, torch)
        if key not in self._columns:
            self._columns[key] = Column(name, device.slug, torch)
        column = self._columns[key]
        column.slots.append(slot)
        return column

    def remove(self, node: str) -> bool:
        """A node is gone; gives whether a device of it was in a column."""
        was = False
        for column in self._columns.values():
            left = [one for one in column.slots if one.node.id != node]
            was = was or len(left) < len(column.slots)
            column.slots = left
        return was

    def all(self) -> list[Column]:
        """In the order in which their first device came."""
        return list(self._columns.values())

    def title(self, column: Column) -> str:
        """Its name, with what tells it from other columns of that name: devices, PyTorch."""
        return self._titles.setdefault(id(column), self._title(column))

    def folder(self, column: Column) -> str:
        """Of its records: the device's, as if measured there, unless two columns share it."""
        return self._folders.setdefault(id(column), self._folder(column))

    def _title(self, column: Column) -> str:
        alike = [one for one in self.all() if one.name == column.name]
        several = len({one.slug for one in alike}) > 1
        device = f", {column.slug}" if several else ""
        of_slug = [one for one in alike if one.slug == column.slug]
        version = f", torch {column.torch}" if len(of_slug) > 1 else ""
        return f"{column.name}{device}{version}"

    def _folder(self, column: Column) -> str:
        alike = [one for one in self.all() if one.slug == column.slug]
        if len(alike) == 1:
            return column.slug
        of_name = [one for one in alike if one.name == column.name]
        label = "" if column.name == column.slug else f"_{column.name.replace('/', '-')}"
        version = f"_torch-{column.torch}" if len(of_name) > 1 else ""
        return f"{column.slug}{label}{version}"
