"""Storage commitments: what was promised, to whom, and whether he knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hilum.cli.shown import (
    DataOption,
    JsonOption,
    database,
    fail_clearly,
    moment,
    print_json,
    table,
)
from hilum.gateway.store.commitment_requests import CommitmentRequests
from hilum.gateway.store.commitments import Commitments

__all__ = ["commitments"]


class _ListGroup(TyperGroup):
    """``hilum commitments`` is ``hilum commitments ls``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h")):
            args = ["ls", *args]
        return super().parse_args(ctx, args)


commitments = typer.Typer(
    cls=_ListGroup,
    help="Storage commitments: what was promised, and to whom.",
    add_completion=False,
)


@commitments.command("ls")
def commitments_ls(
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
                ("asked", "of", "transaction", "instances", "not committed", "answered", "cause"),
                [
                    (
                        moment(each.created_at), each.peer, each.transaction_uid, each.references,
                        each.failed, moment(each.answered_at), each.cause,
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
            ("asked", "by", "transaction", "instances", "not committed", "state", "way", "cause"),
            [
                (
                    moment(each.asked_at), f"{each.calling_ae} → {each.called_ae}",
                    each.transaction_uid, each.references, each.failed, each.state, each.way,
                    each.cause,
                )
                for each in found
            ],
        )  # fmt: skip
