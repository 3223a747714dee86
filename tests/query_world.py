"""Data sets with awkward values, and queries about them, both from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from tests.reference_matcher import ATTRIBUTES, COUNTS, LEVELS, values_of

CT, MR, SR = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.88.11",
)

NAMES = [
    "Doe^Jane", "DOE^JANE^^^", "Doe", "Doe^John^Q^Dr", "Döe^Jåne", "Muller^Hans", "Müller^Hans",
    "Straße^Ida", "O'Neil^50%", "Under_score^A", "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "=山田^花子", "Hong^Gildong=洪^吉洞=홍^길동", "Łódź^Zoë", "Иванов^Иван", "A*B^C?D", "",
    "doe^ jane", "X!Y^\u00e7a",
]  # fmt: skip
IDS = ["P1", "P2", "p1", "P_1", "P%1", "PX1", "P1 2", "0001", "1", "Ü-7", ""]
TEXTS = ["CT THORAX", "CT thorax", "Knie li.", "Übersicht", "100%", "a_b", "axb", "[x]", "A!B",
         "x*y", "", "胸部"]  # fmt: skip
CODES = ["CT", "MR", "SR", "US"]
DATES = ["20240229", "20240301", "20231231", "19991231", "20240101", ""]
TIMES = ["10", "1030", "103000", "103015.5", "103015.500000", "105959.999", "000000", "2359", ""]
NUMBERS = ["1", "2", "10", "0", ""]
DECIMALS = ["1.5", "1.50", "80", ""]


def data_sets(seed: int, patients: int = 9) -> list[Dataset]:
    """Instances of some patients, in order of arrival."""
    dice = random.Random(seed)
    found: list[Dataset] = []
    for patient in range(patients):
        of_patient = {
            "PatientID": dice.choice(IDS), "IssuerOfPatientID": dice.choice(["", "", "HIS"]),
            "PatientName": dice.choice(NAMES), "PatientBirthDate": dice.choice(DATES),
            "PatientBirthTime": dice.choice(TIMES), "PatientSex": dice.choice(["M", "F", "O", ""]),
            "OtherPatientIDs": dice.choice([[], ["X1"], ["X1", "X2"], ["P_1", "Y*"]]),
            "OtherPatientNames": dice.choice([[], ["Doe^J", "Roe^J"], ["Äh^Öh"]]),
            "EthnicGroup": dice.choice(["", "A", "B"]), "PatientComments": dice.choice(TEXTS),
        }  # fmt: skip
        # A patient's attributes are the first instance's: the same ID has to say the same.
        for earlier in found:
            if of_patient["PatientID"] and all(
                values_of(earlier, k) == ([of_patient[k]] if of_patient[k] else [])
                for k in ("PatientID", "IssuerOfPatientID")
            ):
                of_patient = {k: earlier.get(k) for k in of_patient}
                break
        for study in range(dice.randint(1, 3)):
            uid = f"1.2.{seed % 1000}.{patient}.{study}"
            of_study = {
                "StudyInstanceUID": uid, "StudyDate": dice.choice(DATES),
                "StudyTime": dice.choice(TIMES), "AccessionNumber": dice.choice(IDS),
                "StudyID": dice.choice(IDS), "ReferringPhysicianName": dice.choice(NAMES),
                "StudyDescription": dice.choice(TEXTS), "InstitutionName": dice.choice(TEXTS),
                "NameOfPhysiciansReadingStudy": dice.choice([[], ["Doe^Jane", "Müller^Hans"]]),
                "AdmittingDiagnosesDescription": dice.choice([[], ["A", "B"], ["100%"]]),
                "PatientAge": dice.choice(["042Y", "003M", ""]),
                "PatientSize": dice.choice(DECIMALS), "PatientWeight": dice.choice(DECIMALS),
                "Occupation": dice.choice(["", "Baker"]),
                "AdditionalPatientHistory": dice.choice(TEXTS),
                "TimezoneOffsetFromUTC": dice.choice(["", "+0100", "-0500"]),
            }  # fmt: skip
            for series in range(dice.randint(1, 3)):
                of_series = {
                    "SeriesInstanceUID": f"{uid}.{series}", "Modality": dice.choice(CODES),
                    "SeriesNumber": dice.choice(NUMBERS),
                    "SeriesDescription": dice.choice(TEXTS), "SeriesDate": dice.choice(DATES),
                    "SeriesTime": dice.choice(TIMES),
                    "PerformedProcedureStepStartDate": dice.choice(DATES),
                    "PerformedProcedureStepStartTime": dice.choice(TIMES),
                    "BodyPartExamined": dice.choice(["CHEST", "KNEE", ""]),
                    "Laterality": dice.choice(["L", "R", ""]),
                    "ProtocolName": dice.choice(TEXTS),
                    "PerformingPhysicianName": dice.choice([[], ["Doe^Jane", "Łódź^Zoë"]]),
                    "OperatorsName": dice.choice([[], ["Muller^Hans"], ["A^B", "C^D"]]),
                    "Manufacturer": dice.choice(TEXTS), "ManufacturerModelName": "X-1",
                    "StationName": dice.choice(["CT1", "CT_1", "CT%1", ""]),
                }  # fmt: skip
                for instance in range(dice.randint(1, 3)):
                    of_instance = {
                        "SOPInstanceUID": f"{uid}.{series}.{instance}",
                        "SOPClassUID": dice.choice([CT, MR, SR]),
                        "InstanceNumber": dice.choice(NUMBERS),
                        "ContentDate": dice.choice(DATES), "ContentTime": dice.choice(TIMES),
                        "AcquisitionDate": dice.choice(DATES),
                        "AcquisitionTime": dice.choice(TIMES),
                        "ImageType": dice.choice(
                            [["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY", "A_B"]]
                        ),
                        "NumberOfFrames": dice.choice(["", "1", "12"]),
                    }  # fmt: skip
                    ds = Dataset()
                    ds.SpecificCharacterSet = "ISO_IR 192"
                    for name, value in (of_patient | of_study | of_series | of_instance).items():
                        setattr(ds, name, value)
                    found.append(ds)
    return found


def queries(seed: int, datasets: list[Dataset], count: int) -> Iterator[Dataset]:
    """Identifiers at every level, some of whose keys match something."""
    dice = random.Random(seed)
    for _ in range(count):
        yield one_query(dice, datasets)


def one_query(dice: random.Random, datasets: list[Dataset]) -> Dataset:
    """An identifier that returns many keys and asks a few."""
    level = dice.choice(LEVELS)
    known = [
        keyword
        for above in LEVELS[: LEVELS.index(level) + 1]
        for keyword in ATTRIBUTES[above] + COUNTS[above]
    ]
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    for keyword in dice.sample(known, dice.randint(0, len(known))):
        ds.add_new(keyword, dictionary_VR(keyword), "")
    for above in LEVELS[: LEVELS.index(level) + 1]:
        for keyword in ATTRIBUTES[above]:
            if keyword.endswith("UID") and keyword != "SOPClassUID":
                ds.add_new(keyword, "UI", "")
    for keyword in dice.sample(known, dice.choice([0, 1, 1, 1, 2, 2, 3])):
        if keyword == "TimezoneOffsetFromUTC":
            continue
        vr = dictionary_VR(keyword)
        value = _value(dice, keyword, vr, datasets)
        # Ranges and wildcards are no values of their VR.
        ds.add(DataElement(tag_for_keyword(keyword), vr, value, validation_mode=IGNORE))
    return ds


def _value(dice: random.Random, keyword: str, vr: str, datasets: list[Dataset]) -> object:
    values = values_of(dice.choice(datasets), keyword)
    value = dice.choice(values) if values else ""
    kind = dice.random()
    if kind < 0.05:
        return '""' if vr not in ("UI", "IS", "DS", "DA", "TM", "AS") else ""
    if vr == "DA":
        first, last = sorted(dice.sample([d for d in DATES if d], 2))
        return dice.choice([value, f"{first}-{last}", f"{first}-", f"-{last}", f"{value}-"]).replace(
            "--", "-").strip("-") or first  # fmt: skip
    if vr == "TM":
        first, last = sorted(dice.sample([t for t in TIMES if t], 2))
        return dice.choice([value, f"{first}-{last}", f"{first}-", f"-{last}"]) or first
    if vr in ("IS", "DS"):
        return value or dice.choice(["1", "2", "7"])
    if keyword in ("ModalitiesInStudy", "Modality") and kind < 0.4:
        return dice.choice([["CT", "MR"], "C*", "?R", "XX"])
    if vr == "UI":
        if kind < 0.4:
            return [v for d in dice.sample(datasets, 3) for v in values_of(d, keyword)] or value
        return value
    if not value:
        return dice.choice(["*", "?*", "A*", ""])
    place = dice.randrange(len(value))
    shapes = [
        value, value[: place + 1] + "*", "*" + value[place:], value[:place] + "?" + value[place + 1 :],
        "*" + value[place : place + 2] + "*", value[:1] + "*" + value[-1:], "?" * len(value),
        value.swapcase(), "*" * 3, f"*{value}*{value}*",
    ]  # fmt: skip
    if vr == "AS":
        return value
    return dice.choice(shapes)
