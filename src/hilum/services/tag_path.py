"""Tag paths: how a rule or an index names a data element, nested and private ones included.

::

    StudyInstanceUID                                          a keyword
    00080018                                                  eight hexadecimal digits
    (0008,0018)                                               the same
    (0019,"SIEMENS CT VA0  COE",10)                           private: group, creator, low byte
    RequestAttributesSequence.ScheduledProcedureStepID        inside the items of a sequence
    (0029,"ACME",20).00181072                                 inside a private sequence

The creator says which block of the group is meant; the block is looked up in each data set.

Standard: PS3.5 7.8.1 (private blocks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hilum.errors import ConfigurationError
from hilum.services.dictionary import dictionary_vr, tag_for_keyword

__all__ = ["TagPath", "TagStep"]

_STEP = re.compile(
    r"""(?P<tag>[0-9A-Fa-f]{8})(?=\.|$)
      | (?P<keyword>[A-Za-z][A-Za-z0-9]*)
      | \(\s*(?P<group>[0-9A-Fa-f]{4})\s*,\s*
        (?: "(?P<creator>[^"\\]{1,64})"\s*,\s*(?P<low>[0-9A-Fa-f]{2})
          | (?P<element>[0-9A-Fa-f]{4}) )\s*\)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class TagStep:
    """One step of a path: an element in a data set or in a sequence item.

    Args:
        group: the group number.
        element: the element number; of a private element with creator, its low byte.
        creator: the private creator, None where the element number is used as it is.
    """

    group: int
    element: int
    creator: str | None = None

    @property
    def vr(self) -> str | None:
        """The VR by the data dictionary; None when it has none or more than one."""
        try:
            if self.creator is not None:
                # Private dictionaries are large and seldom asked for.
                from pydicom.datadict import private_dictionary_VR

                found = private_dictionary_VR((self.group, 0x1000 + self.element), self.creator)
            else:
                found = dictionary_vr(self.group << 16 | self.element)
        except KeyError:
            return None
        return found if len(found) == 2 else None


@dataclass(frozen=True, slots=True)
class TagPath:
    """A data element, by the steps that lead to it from the top of the data set.

    Args:
        text: the path as it was written; results are filed under it.
        steps: every step but the last names a sequence.
    """

    text: str
    steps: tuple[TagStep, ...]

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> TagPath:
        """Read a path in the grammar of this module.

        Raises:
            ConfigurationError: not a path, an unknown keyword, or an element that no data set has.
        """
        steps: list[TagStep] = []
        position = 0
        while True:
            match = _STEP.match(text, position)
            if match is None:
                raise ConfigurationError(
                    f"tag path {text!r} cannot be read at character {position + 1}; write keywords, "
                    'eight hexadecimal digits or (gggg,"creator",ee), with dots between'
                )
            steps.append(_step(match, text))
            position = match.end()
            if position == len(text):
                return cls(text, tuple(steps))
            if text[position] != ".":
                raise ConfigurationError(
                    f"tag path {text!r} has {text[position]!r} where a dot was expected"
                )
            position += 1


def _step(match: re.Match[str], text: str) -> TagStep:
    found = match.groupdict()
    if found["keyword"]:
        tag = tag_for_keyword(found["keyword"])
        if tag is None:
            raise ConfigurationError(
                f"tag path {text!r}: {found['keyword']!r} is not a keyword of PS3.6; "
                "write the tag as eight hexadecimal digits"
            )
        step = TagStep(tag >> 16, tag & 0xFFFF)
    elif found["tag"]:
        step = TagStep(int(found["tag"][:4], 16), int(found["tag"][4:], 16))
    elif found["creator"] is None:
        step = TagStep(int(found["group"], 16), int(found["element"], 16))
    else:
        step = TagStep(int(found["group"], 16), int(found["low"], 16), found["creator"].strip())
        if not step.group & 1:
            raise ConfigurationError(
                f"tag path {text!r}: group {step.group:04X} is even; only odd groups are private"
            )
    if step.group in (0x0000, 0x0002, 0xFFFE):
        raise ConfigurationError(
            f"tag path {text!r}: group {step.group:04X} does not occur in a data set"
        )
    return step
