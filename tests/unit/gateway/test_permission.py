from __future__ import annotations

import pytest

from hilum.gateway.permission import fingerprint, may_see
from hilum.gateway.store.entries import Account, Peer, Snapshot
from hilum.gateway.store.passcodes import hash_passcode, is_passcode
from hilum.gateway.store.results import Viewer

CERTIFICATE = fingerprint(b"a certificate")
ALICE = Account(7, "alice", None, False, 0, ("radiology",))
BOB = Account(8, "bob", None, False, 0, ("radiology", "research"))
CAROL = Account(9, "carol", None, True, 0, ("radiology",))
SNAPSHOT = Snapshot(1, (ALICE, BOB, CAROL), (), (), (), {})


def peer(belongs_to="", certificate=""):
    return Peer("ws", "WS", "10.0.0.1", belongs_to=belongs_to, certificate=certificate)


@pytest.mark.parametrize(
    ("who", "proof", "seen"),
    [
        (None, {}, Viewer()),
        (None, {"user": ALICE, "certificate": CERTIFICATE}, Viewer()),
        (peer(), {}, Viewer()),
        (peer(), {"user": ALICE}, Viewer(7)),
        (peer(), {"user": CAROL}, Viewer()),
        (peer("alice", CERTIFICATE), {}, Viewer()),
        (peer("alice", CERTIFICATE), {"certificate": "00" * 32}, Viewer()),
        (peer("alice", CERTIFICATE), {"certificate": CERTIFICATE}, Viewer(7)),
        (peer("", CERTIFICATE), {"certificate": CERTIFICATE}, Viewer()),
        (peer("alice"), {"certificate": ""}, Viewer()),
        (peer("nobody", CERTIFICATE), {"certificate": CERTIFICATE}, Viewer()),
        (peer("carol", CERTIFICATE), {"certificate": CERTIFICATE}, Viewer()),
        (peer("@radiology", CERTIFICATE), {"certificate": CERTIFICATE}, Viewer(7, others=(8,))),
        (peer("@radiology"), {"user": BOB}, Viewer(8, others=(7,))),
        (peer("@radiology"), {}, Viewer()),
        (peer("@radiology"), {"certificate": ""}, Viewer()),
        (peer("@research"), {"user": ALICE}, Viewer(7)),
        (peer("@radiology"), {"user": CAROL}, Viewer()),
        (peer("alice", CERTIFICATE), {"certificate": CERTIFICATE, "user": BOB},
         Viewer(8, others=(7,))),
    ],
)  # fmt: skip
def test_who_sees_what(who, proof, seen):
    assert may_see(SNAPSHOT, who, **proof) == seen


def test_fingerprints():
    assert fingerprint(None) == "" and len(CERTIFICATE) == 64


def test_passcodes():
    hashed = hash_passcode("correct horse")
    assert "horse" not in hashed
    assert is_passcode(b"correct horse", hashed)
    assert not is_passcode(b"wrong", hashed)
    assert not is_passcode(b"", "") and not is_passcode(b"nobody", "")
    assert not is_passcode(b"x", "not a hash")
    assert "passcode" not in repr(Account(1, "a", None, False, 0, (), hashed))
