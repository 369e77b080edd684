"""The page on which a person goes over doubtful labels: one HTML file."""

import base64
import hashlib
import html
import importlib.resources
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxnlt.clean.originals import Arrays, Files
from jaxnlt.clean.verdicts import Verdicts
from jaxnlt.data import readable
from jaxnlt.runtime import console
from jaxnlt.runtime.files import atomic

FILE = "review.html"
#: How many images a page shows: some five megabytes of photographs.
MOST = 500
# Side in pixels of the largest picture; up to the second as it is, without
# the losses of a JPEG.
_SIDE, _SMALL = 224, 96

# Inline text runs by its hash alone, and nothing is ever fetched.
_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src '{style_hash}'; script-src '{script_hash}'; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head>
<body>
{body}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body></html>
"""


def write(
    path: pathlib.Path,
    originals: Files | Arrays,
    verdicts: Verdicts,
    class_names: Sequence[str],
    title: str,
    most: int = MOST,
) -> int:
    """Writes the page.

    Args:
      path: the file.
      originals: the images.
      verdicts: N of them, the worst first.
      class_names: C names.
      title: of the page.
      most: of the labels that are shown: all flagged ones before others.

    Returns:
      The number of labels that are shown.
    """
    # False comes first, and a stable order keeps the worst in front.
    wanted = ~(verdicts.flagged | verdicts.unreadable)
    rows = np.sort(np.argsort(wanted, kind="stable")[:most])
    identity = hashlib.sha256(_subject(verdicts, class_names)).hexdigest()
    codes = {name: k for k, name in enumerate(class_names)}
    keys = verdicts.ids[rows].tolist()
    pictures = readable.in_threads(
        lambda key: _data_uri(originals.picture(key)), keys
    )
    data = {
        "title": title,
        "identity": identity[:32],
        "column": verdicts.id_column,
        "classes": list(class_names),
        "total": len(verdicts),
        "flagged": int(verdicts.flagged.sum()),
        "rows": [
            {
                "id": key,
                "given": codes[verdicts.given[row]],
                "suggested": codes[verdicts.suggested[row]],
                "clean": _share(verdicts.clean_probability[row]),
                "predicted": codes.get(verdicts.predicted[row], -1),
                "predictedProbability": _share(
                    verdicts.predicted_probability[row]
                ),
                "kind": verdicts.kind[row],
                "flagged": bool(verdicts.flagged[row]),
                "unreadable": bool(verdicts.unreadable[row]),
                "picture": picture,
            }
            for row, key, picture in zip(rows, keys, pictures, strict=True)
        ],
    }
    style, script, body = map(_resource, ("css", "js", "html"))
    text = _PAGE.format(
        title=html.escape(console.printable(title)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        body=body,
        # No tag can begin in what the page holds of names.
        data=json.dumps(data).replace("<", "\\u003c"),
    )
    with atomic(path) as file:
        file.write(text)
    return len(rows)


def _subject(verdicts: Verdicts, class_names: Sequence[str]) -> bytes:
    """What a review is of: the same wherever the run and its data lie."""
    content = [
        list(class_names),
        verdicts.ids.tolist(),
        verdicts.given.tolist(),
        verdicts.quality.tolist(),
    ]
    return json.dumps(content).encode()


def _share(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _data_uri(picture: Image.Image | None) -> str:
    """A picture as text, '' for none."""
    if picture is None:
        return ""
    file, kind = io.BytesIO(), "jpeg"
    picture.thumbnail((_SIDE, _SIDE))
    options: dict[str, Any] = {"quality": 80}
    if max(picture.size) <= _SMALL:
        kind, options = "png", {"optimize": True}
    picture.save(file, kind, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind};base64,{data}"


def _resource(ending: str) -> str:
    files = importlib.resources.files("jaxnlt.clean")
    return (files / f"review.{ending}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
