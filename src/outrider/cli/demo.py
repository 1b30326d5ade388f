"""`outrider demo`: the bundled pair at work, and what is claimed of such pairs, measured here."""

from __future__ import annotations

from typing import Annotated

import typer

from outrider.cli.output import check_json_target
from outrider.demo import bundled_pair
from outrider.request import MAX_SEED


def demo(
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the noise of every text.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter texts.")] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save what was measured; -: to stdout.")] = None,
) -> None:
    """See the bundled pair write Python plainly and speculatively, and each claim about it measured.

    Exits with 1 if a text came out different that must not.
    """
    check_json_target(json)
    pair = bundled_pair()

    from outrider.cli.demo_show import show_demo

    show_demo(pair, seed=seed, is_quick=quick, json=json)
