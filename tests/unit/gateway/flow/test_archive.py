from __future__ import annotations

import pytest

from hilum.gateway.flow.archive import get_contexts
from hilum.services.sop_classes import PATIENT_ROOT_GET, STORAGE_SOP_CLASSES, STUDY_ROOT_GET

RDSR = "1.2.840.10008.5.1.4.1.1.88.67"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG = "1.2.840.10008.1.2.4.70"
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize("told", [[], [""], ["", "1.2.3"], [CT], [CT, RDSR]])
def test_contexts_of_a_get(told):
    contexts, roles = get_contexts(told)
    assert len(contexts) + 3 <= 128
    services = {uid for uid, _ in contexts[:2]}
    assert services == {STUDY_ROOT_GET, PATIENT_ROOT_GET}
    classes = {uid for uid, _ in contexts} - services
    assert {role.sop_class_uid for role in roles} == classes
    assert all(role.scp and not role.scu for role in roles)
    assert set(told) - {""} <= classes
    if not told or "" in told:
        assert {RDSR, CT} <= classes
        assert len(classes) > 45
    else:
        of_ct = [syntaxes for uid, syntaxes in contexts if uid == CT]
        assert of_ct[0] == (EXPLICIT, IMPLICIT)
        assert all(len(syntaxes) == 1 for syntaxes in of_ct[1:])
        assert {(JPEG,), (IMPLICIT,)} <= set(of_ct)
    assert classes - {"1.2.3"} <= STORAGE_SOP_CLASSES
