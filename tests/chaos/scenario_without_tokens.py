"""The control: the same dropped replies, and batches that the store may not recognise, double."""

from contextlib import closing
from unittest import mock

from sysquant.journal import Journal
from sysquant.outbox import Outbox
from sysquant.rows import event
from sysquant.store import connect, insert, migrate
from tests.chaos.harness import scenario

ANEW = {"settings": {"deduplicate_insert": "disable"}}
WAYS = {"doubled": insert, "control": lambda to, at, rows, _: to.insert_arrow(at, rows, **ANEW)}


@scenario(small={"rows": 20}, full={"rows": 400}, zero=("doubled",), least={"control": 1})
def without_tokens(lab, seed, rows):
    found = {"rows": rows}
    for figure, way in WAYS.items():
        name = lab.name()
        with closing(lab.client(name)) as client, closing(Journal(lab.home / name)) as journal:
            migrate(client)
            sender = Outbox(journal.path, lambda name=name: connect(lab.dsn(name)))
            with mock.patch("sysquant.outbox.insert", way), lab.dropping(0.3), closing(sender):
                for number in range(rows):
                    row = {"events": event(name, 1, "start", f"{number}")}
                    sender.send(journal.commit(None, row, seal_all=True))
                assert sender.flush(600)
            found[figure] = client.command("SELECT count() FROM events") - rows
    return found
