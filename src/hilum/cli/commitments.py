"""Storage commitments: what was promised, to whom, and whether he knows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from hilum.cli.shown import DataOption, JsonOption, database, fail_clearly, print_json, table
from hilum.gateway.store.commitment_requests import CommitmentRequests
from hilum.gateway.store.commitments import Commitments

__all__ = ["commitments"]


def commitments(
    ours: Annotated[bool, typer.Option("--ours", help="those that we asked of others")] = False,
    unanswered: Annotated[
        bool, typer.Option("--open", help="only those whose result is still to be delivered")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="most rows")] = 100,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List requests for storage commitment, newest first."""
    with fail_clearly(), database(data) as opened:
        if ours:
            asked = CommitmentRequests(opened).listed(limit=limit, open_only=unanswered)
            if json:
                print_json(asked)
                return
            table(
                ("asked", "of", "transaction", "instances", "not committed", "answered", ""),
                [
                    (
                        _time(each.created_at), each.peer, each.transaction_uid, each.references,
                        each.failed, _time(each.answered_at), each.cause,
                    )
                    for each in asked
                ],
            )  # fmt: skip
            return
        found = Commitments(opened).listed(limit=limit, open_only=unanswered)
        if json:
            print_json(found)
            return
        table(
            ("asked", "by", "transaction", "instances", "not committed", "state", "way", ""),
            [
                (
                    _time(each.asked_at), f"{each.calling_ae} → {each.called_ae}",
                    each.transaction_uid, each.references, each.failed, each.state, each.way,
                    each.cause,
                )
                for each in found
            ],
        )  # fmt: skip


def _time(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at / 1e6):%Y-%m-%d %H:%M:%S}"
