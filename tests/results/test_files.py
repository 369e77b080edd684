import json

import numpy as np
import pytest

from jaxnlt.results import files
from jaxnlt.runtime.errors import UserError


def test_read_jsonl_names_a_bad_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert files.read_jsonl(path) == []
    path.write_text('{"epoch": 0}\n{"epoch"\n{"epoch": 2}\n')
    with pytest.raises(UserError, match="metrics.jsonl: line 2 "):
        files.read_jsonl(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": np.float32(0.5), "b": float("inf")})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None}
    with pytest.raises(TypeError):
        files.write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
