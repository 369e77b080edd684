"""labels.csv is read back as it was written, and refused where it was not."""

import numpy as np
import pytest

from jaxnlt.data.records import UNKNOWN
from jaxnlt.results import labels
from jaxnlt.runtime.errors import UserError

HEAD = (
    "path,given_label,is_label_issue,label_quality,clean_probability,"
    "predicted_label,predicted_probability,suggested_label,margin,"
    "issue_kind,true_index\n"
)
ROW = "'=a.png,cat,True,0.25,0.5,dog,0.75,dog,-1.5,mislabelled,1\n"
LOST = "b.png,'-dog,FALSE,,,unreadable,,'-dog,,unreadable,\n"


def read(tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8", newline="")
    return labels.read(file)


# A spreadsheet on Windows adds a mark and carriage returns.
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_columns_have_their_types(tmp_path, ends):
    table = read(tmp_path, "\ufeff" + (HEAD + ROW + LOST).replace("\n", ends))
    kinds = {name: column.dtype.kind for name, column in table.items()}
    numbers = ["label_quality", "clean_probability", "predicted_probability"]
    assert {k: n for k, n in kinds.items() if n != "O"} == {
        "is_label_issue": "b",
        "true_index": "i",
        **dict.fromkeys([*numbers, "margin"], "f"),
    }
    assert table["path"].tolist() == ["=a.png", "b.png"]
    assert table["given_label"].tolist() == ["cat", "-dog"]
    assert table["is_label_issue"].tolist() == [True, False]
    assert table["margin"][0] == -1.5 and np.isnan(table["margin"][1])
    assert table["true_index"].tolist() == [1, UNKNOWN]


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "labels.csv: no column index"),
        (HEAD, "labels.csv: lists no image"),
        (HEAD.replace("is_label_issue", "x") + ROW, "no column is_label_issue"),
        (HEAD + ROW + "c.png,cat\n", "row 3 has 2 values"),
        (HEAD + ROW + ROW, "row 3 repeats path '=a.png' of row 2"),
        (HEAD + ROW.replace("True", "maybe"), "row 2: is_label_issue"),
        (HEAD + ROW.replace("0.25", "1.25"), "row 2: label_quality"),
        (HEAD + ROW.replace("0.25", "nan"), "row 2: label_quality"),
        (HEAD + ROW.replace("-1.5", "x"), "row 2: margin"),
        (HEAD + ROW.replace(",1\n", ",1.0\n"), "row 2: true_index"),
        (HEAD + ROW.replace(",1\n", f",{'9' * 19}\n"), "row 2: true_index"),
    ],
)
def test_damage_is_named(tmp_path, text, match):
    with pytest.raises(UserError, match=match):
        read(tmp_path, text)
