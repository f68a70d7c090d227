"""`fastsim models`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastsim.config import configuration
from fastsim.forecast.availability import availability
from fastsim.forecast.known import MODELS
from fastsim.forecast.seen import seen_in_words


@configuration(slots=False)
class ModelsCommand:
    """List the forecasters: licence, size, what they have seen, and where which weights are."""

    def __call__(self, console: Console) -> None:
        """Show them."""
        table = Table("Name", "Licence", "Parameters", "Context", "Horizon", "Has seen", "Package")
        places = Table("Name", "Weights", "Revision", "SHA-256")
        cards = [record.card for record in MODELS if record.card is not None]
        for record, card in zip(MODELS, cards, strict=True):
            found = availability(record)
            table.add_row(
                record.name,
                card.licence,
                f"{card.parameters:,}",
                f"{card.max_context:,}",
                f"{card.max_horizon:,}",
                "no market" if card.known_until is None else card.known_until,
                found.package,
            )
            places.add_row(record.name, escape(found.weights), found.revision[:12], found.digest)
        console.print(table)
        console.print(places)
        for card in cards:
            if card.attribution:
                console.print(f"{card.name}: {card.attribution}", highlight=False)
        for card in cards:
            console.print(seen_in_words(card), highlight=False, markup=False)
