"""`fastsim doctor`."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastsim.config import configuration
from fastsim.experiment.checkup import checkup


@configuration(slots=False)
class DoctorCommand:
    """Say what this machine has for fastsim, and what the lack of the rest costs."""

    json: bool = False
    """As one JSON object: sections, names in them, and of each what was found and what it costs."""

    def __call__(self, console: Console) -> None:
        """Look and show."""
        sections = checkup()
        if self.json:
            record = {
                section: {look.name: {"found": look.found, "costs": look.costs} for look in looks}
                for section, looks in sections.items()
            }
            print(json.dumps(record, indent=2))
            return
        table = Table("", "Found", "What its lack costs", box=None, pad_edge=False)
        for section, looks in sections.items():
            table.add_row(f"[bold]{section}[/bold]", "", "")
            for look in looks:
                table.add_row(f"  {escape(look.name)}", escape(look.found), escape(look.costs))
        console.print(table, highlight=False)
