"""Which files of a folder are images: one rule for all that list folders.

Hidden files and folders and what systems leave in folders are passed over.
Links are followed, but every folder and every image is listed once.  Names must
be UTF-8, the encoding of everything that a run writes.
"""

import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Collection, Sequence

from jaxnlt.data import decode
from jaxnlt.runtime.errors import UserError, logger

# Left by macOS, Windows and Synology, in lower case.
_SYSTEM = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir")
)
# Unicode's categories of control characters, line and paragraph separators.
_BREAKING = ("Cc", "Zl", "Zp")


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies in a folder and in all folders below it.

    Attributes:
      images: paths relative to the folder with ``/``, sorted by their parts;
        what cannot be read is among them, and is named when it is read.
      others: paths of files that are no images by their names.
      dead: paths of links that lead nowhere and are not named as images.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)
    dead: list[str] = dataclasses.field(default_factory=list)


def passed_over(name: str) -> bool:
    """Whether a file or folder is hidden or left by a system.

    Args:
      name: without its folder.
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def check_name(path: str | pathlib.Path, where: str = "") -> None:
    """Refuses a name that results could not be written with.

    Args:
      path: of a file or folder, or name of a class.
      where: put before it in the message.

    Raises:
      UserError: it is not UTF-8, or holds a line break or another control
        character.
    """
    text = str(path)
    # Most names are printable, which is quick to see.
    if not text.isprintable() and any(
        unicodedata.category(letter) in _BREAKING for letter in text
    ):
        raise UserError(
            f"{where}{ascii(text)}: the name holds a line break or another "
            "control character; rename it"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{_printable(text)}: the name is not UTF-8; rename it (of a "
            "whole folder: convmv -f latin1 -t utf8 --notest -r FOLDER)"
        ) from None


def find(
    folder: pathlib.Path, suffixes: Collection[str] = decode.SUFFIXES
) -> Found:
    """Lists the images in a folder and in all folders below it; opens none.

    Args:
      folder: exists.
      suffixes: endings of images, in lower case.

    Returns:
      What was found.  Of an image or a folder that is reached several times,
      the place without links stays, else the first; a link to a folder above
      is not followed.

    Raises:
      UserError: a folder that cannot be listed; an image whose name is not
        UTF-8.
    """
    found = Found()
    top = os.path.realpath(folder)
    # What is there by itself is listed before what links lead to.
    folders, links = [("", top)], list[str]()
    seen = {top}

    def is_image(name: str) -> bool:
        return os.path.splitext(name)[1].lower() in suffixes

    while folders or links:
        if folders:
            below, real = folders.pop()
            for entry in entries(folder / below):
                path = f"{below}{entry.name}"
                if entry.is_symlink():
                    links.append(path)
                elif entry.is_dir():
                    target = os.path.join(real, entry.name)
                    if target not in seen:
                        seen.add(target)
                        folders.append((f"{path}/", target))
                elif not is_image(entry.name):
                    found.others.append(path)
                elif (target := os.path.join(real, entry.name)) not in seen:
                    seen.add(target)
                    found.images.append(path)
            continue
        path = links.pop(0)
        place = folder / path
        target = os.path.realpath(place)
        if os.path.isdir(place):
            above = os.path.join(top, "").startswith(os.path.join(target, ""))
            if target not in seen and not above:
                seen.add(target)
                folders.append((f"{path}/", target))
        elif is_image(path):
            if target not in seen:
                seen.add(target)
                found.images.append(path)
        else:
            (found.others if os.path.exists(place) else found.dead).append(path)
    for path in found.images:
        check_name(folder / path)
    for paths in (found.images, found.others, found.dead):
        paths.sort(key=lambda path: path.split("/"))
    return found


def entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, without what is passed over.

    Args:
      folder: exists.

    Raises:
      UserError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if not passed_over(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    return sorted(kept, key=lambda entry: entry.name)


def warn(
    folder: pathlib.Path, others: Sequence[str], dead: Sequence[str]
) -> None:
    """Says what was left out, in one line each.

    Args:
      folder: that was listed.
      others: see ``Found``.
      dead: see ``Found``.
    """
    for paths, what in (
        (others, "are no images by their names"),
        (dead, "are links that lead nowhere"),
    ):
        if paths:
            logger.warning(
                "%s: %d files %s and are left out, the first is %s",
                folder,
                len(paths),
                what,
                _printable(str(folder / paths[0])),
            )


def _printable(path: str) -> str:
    """The same, bytes that are not UTF-8 as ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")
