"""The field that a user means by a name that does not exist."""

import difflib
import re
from collections.abc import Mapping

#: What other programs call our fields: the last part of the name, without
#: underscores -> ours, those of the likelier method first.
SYNONYMS = {
    "lr": ("learning_rate",),
    "lrate": ("learning_rate",),
    "stepsize": ("learning_rate",),
    "initlr": ("learning_rate",),
    "baselr": ("learning_rate",),
    "eta": ("learning_rate",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "milestones": ("optimizer.drops",),
    "lrsteps": ("optimizer.drops",),
    "gamma": ("drop_factor",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "testbatchsize": ("eval_batch_size",),
    "valbatchsize": ("eval_batch_size",),
    "epoch": ("epochs",),
    "numepochs": ("epochs",),
    "nepochs": ("epochs",),
    "maxepochs": ("epochs",),
    "totalepochs": ("epochs",),
    "warmupepochs": ("warmup",),
    "numwarmup": ("warmup",),
    "temperature": ("sharpen_temperature",),
    "temp": ("sharpen_temperature",),
    "t": ("sharpen_temperature",),
    "threshold": ("p_threshold",),
    "lambda": ("lambda_u",),
    "beta": ("alpha", "mixup_alpha"),
    "arch": ("model.name",),
    "architecture": ("model.name",),
    "net": ("model.name",),
    "depth": ("model.blocks",),
    "layers": ("model.blocks",),
    "precision": ("model.dtype",),
    "amp": ("model.dtype",),
    "mixedprecision": ("model.dtype",),
    "fp16": ("model.dtype",),
    "bf16": ("model.dtype",),
    "augmentation": ("augment.strong",),
    "dataset": ("benchmark",),
    "datadir": ("data.path",),
    "dataroot": ("data.path",),
    "root": ("data.path",),
    "labels": ("data.labels_file",),
    "noisetype": ("data.noise",),
    "noisemode": ("data.noise",),
    "noiserate": ("data.rate",),
    "noiseratio": ("data.rate",),
    "r": ("data.rate",),
    "imbalance": ("data.imb",),
    "imbfactor": ("data.imb",),
    "imbratio": ("data.imb",),
    "imgsize": ("data.image_size",),
    "resolution": ("data.image_size",),
    "numworkers": ("data.workers",),
    "nworkers": ("data.workers",),
    "randomstate": ("seed",),
    "randomseed": ("seed",),
    "resume": ("init_from",),
    "checkpoint": ("init_from",),
    "outputdir": ("workdir",),
    "savedir": ("workdir",),
    "out": ("workdir",),
}
# Least resemblance of a suggestion, and what finding every word of a name
# among the words of a field's meaning counts.
_LEAST, _BY_MEANING = 0.7, 0.75


def nearest(name: str, known: Mapping[str, str]) -> str | None:
    """The known name that is nearest by its spelling or by its meaning.

    Args:
      name: dotted, that does not exist.
      known: dotted name -> what it means, in words.

    Returns:
      One of the known names, or None where none comes near.
    """
    if not known:
        return None
    last = _last(name)
    usual = SYNONYMS.get(re.sub(r"[_-]", "", last.lower()), ())
    for found in (last, *usual):
        same = [k for k in known if f".{k}".endswith(f".{found}")]
        if same:
            return max(same, key=lambda k: _ratio(name, k))
    best = max(known, key=lambda k: _resemblance(name, k, known[k]))
    enough = _resemblance(name, best, known[best]) >= _LEAST
    return best if enough else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _resemblance(name: str, known: str, meaning: str) -> float:
    last, own = _last(name), _last(known)
    asked = set(_words(last))
    inside = asked <= {*_words(known), *_words(meaning)}
    # Words of one or two letters stand in any text.
    by_meaning = _BY_MEANING if inside and len(max(asked, key=len)) > 2 else 0
    by_name = 0.9 if asked <= set(_words(own)) else 0
    # Names within one group are confused with each other first.
    group = known.rpartition(".")[0]
    near = 0.02 if group and name.startswith(f"{group}.") else 0
    spelt = max(_ratio(last, own), _ratio(name, known))
    return max(spelt, by_name, by_meaning) + near


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower()) or [""]
