"""Batches of images on disk."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.augment import table
from jaxnlt.data import decode, load, streaming
from jaxnlt.data.decode import BadImage, Transform
from jaxnlt.data.files import CutImages, ImageFiles
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import Trainer, rng_of
from tests import runs, typed
from tests.data.streamed import SIDE, configuration, write_folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Images of several sizes, so that crops matter."""
    root = tmp_path_factory.mktemp("large")
    return write_folder(root, sizes=(11, 14, 17))


TRANSFORM = Transform(10, SIDE, "random_crop", eval_resize=9)
MESH = sharding.make_mesh([4])


def images_of(path):
    """The training images of a folder."""
    paths = sorted(p.relative_to(path) for p in path.glob("train/*/*.png"))
    names = np.array([p.as_posix() for p in paths])
    return CutImages(ImageFiles(path, names), TRANSFORM)


def streamed_of(path, workers=2, **options):
    return streaming.Streamed(images_of(path), MESH, workers=workers, **options)


def want(rows, views=("weak", "strong"), seeds=(1, 2)):
    return {"x": streaming.Request(np.asarray(rows), views, seeds)}


def pixels(batch):
    return [np.asarray(view) for view in batch["x"].pixels]


# A batch ---------------------------------------------------------------------


def test_a_batch_holds_every_view_of_its_rows_in_their_order(large):
    streamed = streamed_of(large)
    rows = [7, 0, 29, 7]
    (batch,) = streamed.read([want(rows, ("weak", "none", "strong"))])
    assert batch["x"].source.tolist() == [0, 1, 2, 3]
    divided = sharding.batched(MESH)
    assert all(view.sharding == divided for view in batch["x"].pixels)
    views = pixels(batch)
    assert [v.shape for v in views] == [(4, SIDE, SIDE, 3)] * 3
    shown = images_of(large)
    # 'none' is the evaluation's view; which crops the others are: below.
    for position, row in enumerate(rows):
        np.testing.assert_array_equal(views[1][position], shown[row])
    assert (views[0] != views[2]).any()
    # The same image twice in a batch is cropped twice.
    assert any((v[0] != v[3]).any() for v in (views[0], views[2]))


def test_crops_depend_on_the_seeds_alone(large):
    plan = [want([k, k + 1, 20 - k], seeds=(5, k)) for k in range(6)]
    first = streamed_of(large, workers=1)
    other = streamed_of(large, workers=4)
    a = [pixels(step) for step in first.read(plan)]
    b = [pixels(step) for step in other.read(plan)]
    np.testing.assert_array_equal(a, b)
    # From the middle of the plan on: nothing is remembered.
    c = [pixels(step) for step in other.read(plan[3:])]
    np.testing.assert_array_equal(a[3:], c)
    moved = [want([k, k + 1, 20 - k], seeds=(6, k)) for k in range(6)]
    d = [pixels(step) for step in first.read(moved)]
    assert (np.array(a) != np.array(d)).any()


def test_only_a_few_batches_are_read_ahead(large):
    streamed = streamed_of(large)
    spy = mock.patch.object(
        ImageFiles, "open", autospec=True, side_effect=ImageFiles.open
    )
    plan = (want([k % 30] * 2, seeds=(k,)) for k in range(100))
    with spy as opened:
        steps = streamed.read(plan)
        for _ in range(5):
            next(steps)
        steps.close()
    assert opened.call_count <= 2 * (5 + streaming.AHEAD)
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


@pytest.mark.parametrize(
    "streamed, devices, waited_for",
    [(True, 1, 10 - streaming.AHEAD), (False, 1, 0), (False, 2, 10)],
)
def test_the_host_waits_for_what_it_dispatched(
    large, monkeypatch, streamed, devices, waited_for
):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    images = streamed_of(large) if streamed else np.zeros(3)
    throttle = streaming.Throttle(images)
    assert [throttle(k) for k in range(10)] == list(range(10))
    assert waited == list(range(waited_for))


def test_images_are_squares_before_they_are_cut(large):
    images = images_of(large)
    squares = np.array([12, 0, 20, 12] + [0] * (len(images) - 4), np.int32)
    files = replace(images.files, squares=squares)
    streamed = streaming.Streamed(CutImages(files, TRANSFORM), MESH)
    (batch,) = streamed.read([want([3, 1, 2, 0], ("weak", "none"))])
    uniforms = np.random.default_rng((1, 2)).random((4, 2, decode.UNIFORMS))
    for position, row in enumerate([3, 1, 2, 0]):
        opened = files.open(row)
        if squares[row]:
            assert opened.shape == (squares[row], squares[row], 3)
        numbers = [uniforms[position, 0], None]
        for view, expected in zip(
            pixels(batch), decode.views(opened, TRANSFORM, numbers), strict=True
        ):
            np.testing.assert_array_equal(view[position], expected)


# Images that cannot be read --------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    names = ("train/class0/03.png", "train/class1/02.png", "test/class2/01.png")
    return write_folder(tmp_path_factory.mktemp("bad"), bad=names)


def test_the_first_bad_image_stops_the_run_by_name(damaged):
    streamed = streamed_of(damaged, workers=4)
    plan = [want([0, 1]), want([2, 12, 4, 3]), want([3])]
    with pytest.raises(BadImage, match="train/class1/02.png: unreadable"):
        list(streamed.read(plan))


@pytest.mark.parametrize(
    "rows, source",
    [
        ([3, 5, 12], [1, 1, 1]),
        ([12, 12, 6, 3], [2, 2, 2, 2]),
        ([5, 3, 12, 6, 3], [0, 3, 3, 3, 0]),
    ],
)
def test_the_next_image_takes_the_place_of_a_skipped_one(damaged, rows, source):
    streamed = streamed_of(damaged, on_bad_image="skip")
    (batch,) = streamed.read([want(rows)])
    assert batch["x"].source.tolist() == source
    for view in pixels(batch):
        np.testing.assert_array_equal(view, view[source])
    assert streaming.count_bad(streamed) == 2
    assert streaming.count_bad(streamed) == 0
    assert streaming.count_bad(np.zeros(3)) is None
    with pytest.raises(UserError, match="03.png: .* any other image"):
        list(streamed.read([want([3, 12])]))


def test_warnings_name_the_file_once_a_run(damaged, caplog):
    """The filter of a run goes by text and first argument."""
    logger.addFilter(once := Once())
    try:
        streamed = streamed_of(damaged, on_bad_image="skip")
        for _ in range(3):
            list(streamed.read([want([0, 3])]))
            streaming.count_bad(streamed)
    finally:
        logger.removeFilter(once)
    (text,) = [r.getMessage() for r in caplog.records]
    assert "train/class0/03.png: " in text and text.endswith("; skipped")


def test_images_in_memory_are_not_read():
    index = {"x": np.zeros((3, 4), np.int32)}
    steps = streaming.feed(np.zeros(9), index, {"x": ("weak",)}, 2, (0,))
    assert list(steps) == [{"x": ((), None)}] * 2


def test_streams_of_a_step_have_crops_of_their_own(large):
    streamed = streamed_of(large)
    index = np.array([[4, 5, 6, 7]] * 2, np.int32)
    rows = {"x": index, "u": index}
    views = {"x": ("weak",), "u": ("weak",)}
    steps = list(streaming.feed(streamed, rows, views, 2, (0, 0, 0)))
    found = [np.asarray(s[name].pixels[0]) for s in steps for name in "xu"]
    for i, a in enumerate(found):
        assert all((a != b).any() for b in found[:i])
    again = list(streaming.feed(streamed, rows, views, 2, (0, 0, 1)))
    assert (np.asarray(again[0]["x"].pixels[0]) != found[0]).any()


def test_a_step_gives_every_view_its_own_pixels():
    """The same keys and order as with images in memory."""
    config = runs.tiny("erm", **{"augment.strong": "none"})
    views = {"x": ("weak", "strong", "none"), "u": ("strong",)}

    def loss(net, params, batch, draws, division, carry):
        seen = {name: stream.views for name, stream in batch.streams.items()}
        return base.LossResult(0.0 * params["w"], {}, seen)

    phase = base.Phase("test", loss, streams=None, views=views)
    statistics = table.StatisticsArrays(np.zeros(1), np.full(1, 1 / 255))
    network = SimpleNamespace(seeded=lambda key: None)
    mesh = sharding.make_mesh([2])
    compiled = step.make_step(network, phase, config, mesh)
    carry = {"x": (np.zeros(0),) * 3, "u": (np.zeros(0),)}
    variables = {"params": {"w": np.float32(0)}, "batch_stats": {}}
    state = base.init_state(variables, carry)
    now = base.Time(np.int32(0), np.int32(0))

    def run(images, rows):
        rate, key = np.float32(0), jax.random.key(0)
        after, _ = compiled.__wrapped__(
            state, None, images, statistics, rows, None, now, rate, key
        )
        return after.carry

    held = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    x, u = (typed.stream(index=np.array(rows)) for rows in ([3, 1], [0, 5]))
    x, u = (replace(s, labels=np.zeros(2), weights=np.ones(2)) for s in (x, u))
    memory = run(streaming.InMemory.of(held), {"x": x, "u": u})
    x = replace(x, views=(held[[3, 1]],) * 3)
    u = replace(u, views=(held[[0, 5]],))
    streamed = run(None, {"x": x, "u": u})
    jax.tree.map(np.testing.assert_array_equal, memory, streamed)
    # Three different crops come out where they went in.
    crops = replace(x, views=(held[[0, 1]], held[[2, 3]], held[[4, 5]]))
    out = run(None, {"x": crops, "u": u})["x"]
    np.testing.assert_allclose(out[1], held[[2, 3]], atol=1e-3)
    np.testing.assert_allclose(out[2], held[[4, 5]], atol=1e-3)


def test_bad_images_of_inference_are_not_counted(tmp_path):
    config = configuration("erm", write_folder(tmp_path), epochs=1, max_steps=1)
    with config.unlocked():
        config.data.on_bad_image = "skip"
    trainer = Trainer(config, load.dataset(config))
    for name in ("class0/03.png", "class1/02.png"):  # lost during the run
        (tmp_path / "train" / name).write_bytes(b"")
    phase, states = trainer.method.phase(0), trainer.init_states()
    states, memory = trainer.enter(0, states, trainer.init_memory(states))
    trainer.infer_train(states)
    assert len(trainer.images.bad) == 2
    result = trainer.train(0, phase, states, [], memory, lambda *_: None)[2]
    plan = phase.streams(
        base.trust_all(trainer.info), rng_of(config.seed, 0, 0, 3)
    )
    met = {3, 12} & set(plan["x"][0].tolist())
    assert result.bad_images == len(met) < 2
