"""Columns of a table: devices of one name whose software agrees. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerbench.cluster.nodes import ALL, CPU, Slot


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

    A device that was asked for by a node's label has a column of that name.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str, str], Column] = {}

    def add(self, said: str, slot: Slot) -> Column:
        """The column of a device that was asked for by this name; the device is in it now."""
        device, torch = slot.device, slot.node.torch
        usual = device.usual_name
        own = said in (ALL, CPU, device.kind, device.card, device.slug, device.name)
        name = usual if own else said
        key = (name, device.slug, torch)
        if key not in self._columns:
            self._columns[key] = Column(name, device.slug, torch)
        column = self._columns[key]
        column.slots.append(slot)
        return column

    def remove(self, node: str) -> None:
        """A node is gone."""
        for column in self._columns.values():
            column.slots = [one for one in column.slots if one.node.id != node]

    def all(self) -> list[Column]:
        """In the order in which their first device came."""
        return list(self._columns.values())

    def title(self, column: Column) -> str:
        """Its name, with the version of PyTorch where another column has the same name."""
        alike = [one for one in self.all() if one.name == column.name]
        return column.name if len(alike) == 1 else f"{column.name}, torch {column.torch}"

    def folder(self, column: Column) -> str:
        """Of its records: the device's, as if measured there, unless two columns share it."""
        alike = [one for one in self.all() if one.slug == column.slug]
        if len(alike) == 1:
            return column.slug
        of_name = [one for one in alike if one.name == column.name]
        label = "" if column.name == column.slug else f"_{column.name.replace('/', '-')}"
        version = f"_torch-{column.torch}" if len(of_name) > 1 else ""
        return f"{column.slug}{label}{version}"
